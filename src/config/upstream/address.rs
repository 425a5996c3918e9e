//! Hosts that requests, with a key, should not be sent to.

use std::net::IpAddr;

/// Reason why requests, with a key, should not be sent to a host; `None` where nothing speaks
/// against it. Clouds tell credentials to anyone who asks at a link-local address.
pub(super) fn address_fault(host: &str) -> Option<&'static str> {
    const METADATA: [&str; 4] = [
        "metadata",
        "metadata.google.internal",
        "metadata.goog",
        "instance-data",
    ];
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    if METADATA.contains(&name.as_str()) {
        return Some("this is a cloud's metadata service, not a model's server");
    }
    let Ok(address) = name.parse::<IpAddr>() else {
        // The system reads "2852039166" and "0xa9.254.43518" as addresses too.
        let number = |part: &str| {
            let hex = part.strip_prefix("0x");
            let digits = hex.unwrap_or(part);
            let is_digit = |b: u8| b.is_ascii_digit() || hex.is_some() && b.is_ascii_hexdigit();
            !digits.is_empty() && digits.bytes().all(is_digit)
        };
        let is_number = name.split('.').all(number);
        return is_number.then_some("this is an address in disguise: write it as \"10.0.0.1\"");
    };
    match address.to_canonical() {
        IpAddr::V4(address) if address.is_link_local() => Some("this address is link-local"),
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            Some("this address is link-local")
        }
        // Of Amazon's and Alibaba's metadata services.
        IpAddr::V6(address) if address.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => {
            Some("this is a cloud's metadata service, not a model's server")
        }
        IpAddr::V4(address) if address.octets() == [100, 100, 100, 200] => {
            Some("this is a cloud's metadata service, not a model's server")
        }
        address if address.is_unspecified() || address.is_multicast() => {
            Some("nothing can be reached at this address")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_services_and_addresses_in_disguise_are_no_upstreams() {
        for bad in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "metadata.google.internal.",
            "Metadata",
            "2852039166",
            "0xa9fea9fe",
            "0xa9.254.43518",
            "127.1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
        ] {
            assert!(address_fault(bad).is_some(), "{bad}");
        }
        for good in [
            "127.0.0.1",
            "10.0.0.1",
            "::1",
            "gpu7",
            "api.example.org",
            "0xy.example",
            "7-gpu",
        ] {
            assert_eq!(address_fault(good), None, "{good}");
        }
    }
}
