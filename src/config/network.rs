//! Ranges of addresses, as `"10.0.0.0/8"`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::problems::cut;

/// A range of addresses: those that share the first bits of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// With zeros behind the prefix.
    base: u128,
    /// Bits of it that count.
    prefix: u32,
    v4: bool,
}

impl Network {
    /// True if an address lies in it. An IPv4 address that is written as IPv6
    /// counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (bits, v4) = bits(address);
        v4 == self.v4 && bits & mask(self.prefix, v4) == self.base
    }
}

/// The bits of an address, and whether it is of IPv4.
fn bits(address: IpAddr) -> (u128, bool) {
    match address.to_canonical() {
        IpAddr::V4(address) => (u128::from(address.to_bits()), true),
        IpAddr::V6(address) => (address.to_bits(), false),
    }
}

fn mask(prefix: u32, v4: bool) -> u128 {
    let width = if v4 { 32 } else { 128 };
    let all = if v4 { u128::from(u32::MAX) } else { u128::MAX };
    let host = u128::MAX.checked_shr(128 - (width - prefix)).unwrap_or(0);
    all & !host
}

impl FromStr for Network {
    type Err = NotNetwork;

    fn from_str(text: &str) -> Result<Self, NotNetwork> {
        let wrong = || NotNetwork(cut(text), None);
        let (address, prefix) = text
            .split_once('/')
            .map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let (bits, v4) = bits(address);
        let width = if v4 { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(width), |prefix| prefix.parse().map_err(|_| wrong()))?;
        if prefix > width || v4 != address.is_ipv4() {
            return Err(wrong());
        }
        let base = bits & mask(prefix, v4);
        if base != bits {
            let meant = Self { base, prefix, v4 };
            return Err(NotNetwork(cut(text), Some(meant)));
        }
        Ok(Self { base, prefix, v4 })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = if self.v4 {
            IpAddr::from(u32::try_from(self.base).unwrap_or_default().to_be_bytes())
        } else {
            IpAddr::from(self.base.to_be_bytes())
        };
        write!(f, "{address}/{}", self.prefix)
    }
}

/// A text that is no range of addresses, and the one that may be meant.
#[derive(Debug)]
pub struct NotNetwork(String, Option<Network>);

impl fmt::Display for NotNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.1 {
            Some(meant) => write!(
                f,
                "{:?} has bits behind its prefix: write \"{meant}\"",
                self.0
            ),
            None => write!(
                f,
                "{:?} is not a range of addresses: write one, as \"10.0.0.0/8\", \"192.168.1.7\" or \"fd00::/8\"",
                self.0
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_what_shares_its_prefix() {
        for (network, address, inside) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "::a00:1", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "fe80::1", true),
            ("::/0", "1.2.3.4", false),
            ("192.168.1.7", "192.168.1.7", true),
            ("192.168.1.7", "192.168.1.6", false),
            ("fd00::/8", "fd12::1", true),
            ("::1", "::1", true),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(
                network.contains(address.parse().unwrap()),
                inside,
                "{network} {address}"
            );
            assert_eq!(network.to_string().parse::<Network>().unwrap(), network);
        }
    }

    #[test]
    fn what_is_no_range_is_refused_with_what_to_write() {
        for bad in [
            "",
            "10",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "::/129",
            "x/8",
            "10.0.0.0/8/8",
        ] {
            let error = bad.parse::<Network>().unwrap_err().to_string();
            assert!(error.contains("10.0.0.0/8"), "{error}");
        }
        let error = "10.1.2.3/8".parse::<Network>().unwrap_err().to_string();
        assert!(error.ends_with("write \"10.0.0.0/8\""), "{error}");
    }
}
