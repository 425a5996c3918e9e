//! The PROXY protocol, version 2: what a balancer says of a connection before
//! the connection's own first byte.
//!
//! Read to the byte and no further, within a bound. Only trusted peers may send
//! it; whether they are is asked by the listener. Version 1 and what the balancer
//! adds (TLVs) are not read.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Most bytes behind the first 16; the addresses take 36 of them.
const REST_BYTES_MAX: u16 = 4 * 1024;

/// Reads the header. `None`: the balancer speaks for itself, or does not say.
///
/// # Errors
///
/// Fails if the header is not of version 2, is too long, or breaks off.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidData);
    let mut head = [0; 16];
    stream.read_exact(&mut head).await?;
    let [signature @ .., version_command, family, high, low] = head;
    let length = u16::from_be_bytes([high, low]);
    if signature != SIGNATURE || version_command >> 4 != 2 || length > REST_BYTES_MAX {
        return Err(wrong());
    }
    let mut rest = vec![0; usize::from(length)];
    stream.read_exact(&mut rest).await?;
    match (version_command & 0xf, family) {
        (1, 0x11 | 0x12) => match rest.first_chunk::<4>() {
            Some(source) if rest.len() >= 12 => Ok(Some(IpAddr::from(Ipv4Addr::from(*source)))),
            _ => Err(wrong()),
        },
        (1, 0x21 | 0x22) => match rest.first_chunk::<16>() {
            Some(source) if rest.len() >= 36 => Ok(Some(IpAddr::from(Ipv6Addr::from(*source)))),
            _ => Err(wrong()),
        },
        // LOCAL, a health check of the balancer's own; unspecified; a Unix socket.
        (0, _) | (1, 0x00 | 0x31 | 0x32) => Ok(None),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzz;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 1, 2, 3, 4];

    #[tokio::test]
    async fn the_source_is_read_and_not_a_byte_more() {
        let mut v6 = [0; 36];
        v6[15] = 1;
        let with_more = [&V4[..], &[4, 0, 1, 0]].concat();
        for (bytes, source) in [
            (header(1, 0x11, &V4), Some("192.0.2.7")),
            (header(1, 0x11, &with_more), Some("192.0.2.7")),
            (header(1, 0x21, &v6), Some("::1")),
            (header(0, 0x00, &[]), None),
            (header(0, 0x11, &V4), None),
            (header(1, 0x00, &[]), None),
        ] {
            let mut stream = &[&bytes[..], b"GET"].concat()[..];
            let read = read(&mut stream).await.unwrap();
            assert_eq!(read.map(|a| a.to_string()).as_deref(), source);
            assert_eq!(stream, b"GET");
        }
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn fuzz_proxy_header(
            bytes in fuzz::damaged(
                &[header(1, 0x11, &V4), header(1, 0x21, &[7; 36]), header(0, 0, &[1; 9])],
                &["\0", "\u{1}", "!", "\r\n\r\n\0\r\nQUIT\n", "\u{11}\0\u{c}"],
            ),
        ) {
            let mut stream = &bytes[..];
            // All is there, so a poll or two is all that it takes.
            let read = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(read(&mut stream));
            if let Ok(source) = read {
                let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
                prop_assert_eq!(stream, &bytes[16 + length..]);
                prop_assert!(bytes.starts_with(&SIGNATURE));
                prop_assert_eq!(source.is_some(), bytes[12] & 0xf == 1 && matches!(bytes[13], 0x11 | 0x12 | 0x21 | 0x22));
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_of_version_2_is_refused() {
        let mut version_1 = b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n".to_vec();
        version_1.resize(64, b' ');
        let mut long = header(1, 0x11, &V4);
        long[14] = 0xff;
        long.resize(1 << 17, 0);
        let mut other = header(1, 0x11, &V4);
        other[12] = 0x31;
        for bytes in [
            version_1,
            long,
            other,
            header(2, 0x11, &V4),
            header(1, 0x11, &V4[..8]),
            header(1, 0x21, &V4),
            header(1, 0x77, &V4),
            header(1, 0x11, &V4)[..20].to_vec(),
            Vec::new(),
        ] {
            assert!(read(&mut &bytes[..]).await.is_err(), "{bytes:.20?}");
        }
    }
}
