//! Hosts as they stand in addresses of the web, and which of them are public.
//!
//! Owns the list of what is not: addresses of this machine and of private networks, the
//! metadata services of clouds, and whatever embeds such an address. Of addresses in IPv6
//! only those that are given out to the public are taken, so that no transition mechanism
//! has to be known by name.
//!
//! A name is judged by its spelling here; what it resolves to is [`address`]'s to judge,
//! when it is looked up.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::str::FromStr;

/// A host, in one spelling: a name in lower case without a dot at its end, or an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A name.
    Name(String),
    /// A literal address; an IPv4 address in IPv6 counts as IPv4.
    Address(IpAddr),
}

/// Reason why a text is no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotHost(&'static str);

/// Longest name of DNS.
const NAME_BYTES_MAX: usize = 253;
/// Longest label of one.
const LABEL_BYTES_MAX: usize = 63;

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl FromStr for Host {
    type Err = NotHost;

    /// Reads a host as it stands in a URL. Takes only what all readers of URLs understand in
    /// the same way.
    fn from_str(text: &str) -> Result<Self, NotHost> {
        if let Some(rest) = text.strip_prefix('[') {
            let address = rest.strip_suffix(']').and_then(|text| text.parse().ok());
            let address: Ipv6Addr = address.ok_or(NotHost(
                "write an IPv6 address in brackets, without a zone, as \"[2001:db8::1]\"",
            ))?;
            return Ok(Self::Address(IpAddr::V6(address).to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if let Ok(address) = name.parse::<Ipv4Addr>() {
            return Ok(Self::Address(IpAddr::V4(address)));
        }
        let is_label = |label: &str| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
            (1..=LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(plain)
        };
        if name.len() > NAME_BYTES_MAX || !name.split('.').all(is_label) {
            return Err(NotHost(
                "write the host as a name of letters, digits, '-' and '.', as \"images.example.org\"; others as \"xn--…\"",
            ));
        }
        // The system, and readers of URLs as in browsers, take such for addresses:
        // 2130706433, 127.1, 0x7f.1, 0177.0.0.1.
        let last = name.rsplit('.').next().unwrap_or_default();
        let is_digit = |b: u8| b.is_ascii_digit();
        let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
        if last.bytes().all(is_digit) || last.strip_prefix("0x").is_some_and(is_hex) {
            return Err(NotHost(
                "this is an address in disguise: write it as \"10.0.0.1\"",
            ));
        }
        Ok(Self::Name(name))
    }
}

impl Host {
    /// Checks that the host is of the public internet, as far as its spelling tells.
    ///
    /// # Errors
    ///
    /// Words that go on a sentence about the host.
    pub fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Address(address) => self::address(*address),
            Self::Name(name) => self::name(name),
        }
    }
}

/// Ends of names that no one outside a network knows, or that are this machine's.
const PRIVATE_ENDS: [&str; 17] = [
    "arpa",
    "corp",
    "home",
    "internal",
    "intra",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "localhost6",
    "localdomain6",
    "onion",
    "private",
    "svc",
    "test",
];

/// Names of metadata services beside those that end so.
const METADATA: [&str; 4] = [
    "metadata.goog",
    "metadata.packet.net",
    "metadata.platformequinix.com",
    "metadata.tencentyun.com",
];

fn name(name: &str) -> Result<(), &'static str> {
    let Some((_, end)) = name.rsplit_once('.') else {
        return Err("is a name of this machine or network, not of the public internet");
    };
    if PRIVATE_ENDS.contains(&end) {
        return Err("is a name of this machine or network, not of the public internet");
    }
    if METADATA.contains(&name) {
        return Err("is a cloud's metadata service");
    }
    Ok(())
}

/// Checks that an address is of the public internet.
///
/// # Errors
///
/// Words that go on a sentence about the address.
pub fn address(address: IpAddr) -> Result<(), &'static str> {
    match address.to_canonical() {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => v6(address),
    }
}

/// By IANA's registry of special-purpose addresses.
fn v4(address: Ipv4Addr) -> Result<(), &'static str> {
    match address.octets() {
        [0 | 127, ..] => Err("is this machine itself"),
        // Azure's answers from a public address.
        [169, 254, ..] | [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192] => {
            Err("is link-local, or a cloud's metadata service")
        }
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => {
            Err("is of a private network")
        }
        [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [224..=255, ..] => Err("is not of the public internet"),
        _ => Ok(()),
    }
}

fn v6(address: Ipv6Addr) -> Result<(), &'static str> {
    if address.is_loopback() || address.is_unspecified() {
        return Err("is this machine itself");
    }
    let [first, second, .., high, low, _, _] = address.segments();
    let is_given_out = first & 0xe000 == 0x2000;
    // Teredo and other protocols; examples; 6to4.
    let is_special = first == 0x2001 && (second < 0x200 || second == 0xdb8)
        || first == 0x2002
        || first == 0x3fff && second < 0x1000;
    // An IPv4 address within a site: RFC 5214.
    let is_isatap = matches!(high, 0 | 0x200) && low == 0x5efe;
    if is_given_out && !is_special && !is_isatap {
        Ok(())
    } else {
        Err("is link-local, private, or leads to another address")
    }
}

/// True if an address is one of this machine's. The system lets a socket be bound to no
/// other.
pub fn is_own(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_loopback() || address.is_unspecified() || UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_public(text: &str) -> bool {
        text.parse::<Host>().is_ok_and(|host| host.check().is_ok())
    }

    #[test]
    fn only_what_anyone_on_the_internet_reaches_is_public() {
        for public in [
            "example.org",
            "Images.Example.ORG.",
            "a_b.example.org",
            "xn--bcher-kva.example",
            "8.8.8.8",
            "[2606:4700::1111]",
            "[::ffff:8.8.8.8]",
            "172.32.0.1",
            "0x7f.example.org",
            "127.0.0.1.nip.io",
        ] {
            assert!(is_public(public), "{public}");
        }
    }

    #[test]
    fn what_leads_near_is_not_public() {
        for private in [
            "",
            ".",
            "..",
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "ip6-loopback",
            "gpu7",
            "localhost.localdomain",
            "printer.local",
            "a.svc.cluster.local",
            "a.default.svc",
            "metadata.google.internal",
            "metadata.google.internal.",
            "metadata.goog",
            "router.home.arpa",
            "::1",
            "[::1",
            "a b.example.org",
            "example.org\t",
            "exa%6dple.org",
            "１２７.0.0.1",
            "ⓔxample.org",
            "example。org",
            "a@example.org",
            "example.org\\",
            "a..example.org",
        ] {
            assert!(!is_public(private), "{private}");
        }
    }

    #[test]
    fn an_address_that_leads_near_is_not_public_in_any_spelling() {
        for private in [
            "127.0.0.1",
            "127.0.0.1.",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0X7F.1",
            "0177.0.0.1",
            "017700000001",
            "127.0.0.0x1",
            "0",
            "0x",
            "0.0.0.0",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.0.1",
            "100.64.0.1",
            "169.254.169.254",
            "168.63.129.16",
            "192.0.0.192",
            "100.100.100.200",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:a9fe:a9fe]",
            "[::127.0.0.1]",
            "[fe80::1]",
            "[fe80::1%25eth0]",
            "[fc00::1]",
            "[fd00:ec2::254]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b:1::7f00:1]",
            "[2002:7f00:1::]",
            "[2001:0:7f00:1::]",
            "[2001:db8::1]",
            "[2a00:1:2:3:0:5efe:7f00:1]",
            "[ff02::1]",
            "[127.0.0.1]",
        ] {
            assert!(!is_public(private), "{private}");
        }
    }

    #[test]
    fn a_host_has_one_spelling() {
        for (text, shown) in [
            ("Example.ORG.", "example.org"),
            ("[2606:4700:0::1]", "[2606:4700::1]"),
            ("[::ffff:8.8.8.8]", "8.8.8.8"),
        ] {
            assert_eq!(text.parse::<Host>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn an_address_of_this_machine_is_its_own() {
        assert!(is_own("127.0.0.1".parse().unwrap()));
        assert!(is_own("::ffff:127.0.0.5".parse().unwrap()));
        assert!(!is_own("192.0.2.7".parse().unwrap()));
    }
}
