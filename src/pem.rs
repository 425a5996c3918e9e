//! Reasons for which a file is not the PEM that it should be, in a sentence for each thing
//! that people mix up.

/// Content that a file should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PemKind {
    /// Certificates.
    Certificate,
    /// A private key.
    PrivateKey,
}

/// Fault of the content of a file that was to hold `wanted`, and the way to mend it;
/// `None` where nothing is known but that it is not that.
pub fn fault(content: &[u8], wanted: PemKind) -> Option<&'static str> {
    if content.starts_with(b"\xef\xbb\xbf-") {
        return Some(
            "it begins with a byte order mark: save it as UTF-8 without one, as `sed -i '1s/^\\xEF\\xBB\\xBF//' FILE` does",
        );
    }
    if content.starts_with(b"\xff\xfe") || content.starts_with(b"\xfe\xff") {
        return Some("it is UTF-16: save it as UTF-8 without a byte order mark");
    }
    let has = |text: &str| memchr::memmem::find(content, text.as_bytes()).is_some();
    let is_encrypted =
        has("-----BEGIN ENCRYPTED PRIVATE KEY-----") || has("Proc-Type: 4,ENCRYPTED");
    let has_key = is_encrypted || has("PRIVATE KEY-----");
    let has_certificate = has("-----BEGIN CERTIFICATE-----");
    match wanted {
        PemKind::PrivateKey if is_encrypted => Some(
            "its key is encrypted, and no one is there to type the passphrase: write it without one, by `openssl pkey -in FILE -out NEW`",
        ),
        PemKind::PrivateKey if has_certificate && !has_key => {
            Some("it holds a certificate where a private key belongs: name the file of the key")
        }
        PemKind::PrivateKey if has("-----BEGIN PUBLIC KEY-----") && !has_key => {
            Some("it holds a public key where a private key belongs: name the file of the private one")
        }
        PemKind::PrivateKey if has("-----BEGIN OPENSSH PRIVATE KEY-----") => Some(
            "its key is in the form of OpenSSH: write it as PKCS#8, by `ssh-keygen -p -m PKCS8 -f FILE`",
        ),
        PemKind::Certificate if has_key && !has_certificate => {
            Some("it holds a private key where certificates belong: name the file of the certificates, and see who could read the key")
        }
        PemKind::Certificate if has("-----BEGIN CERTIFICATE REQUEST-----") && !has_certificate => {
            Some("it holds a request for a certificate: name the certificate that came back for it")
        }
        _ => content.starts_with(b"\x30\x82").then_some(
            "it is in DER form: write it as PEM, by `openssl x509` or `openssl pkey` with -inform DER",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_mix_up_has_a_sentence_of_its_own() {
        let begin = |label: &str| format!("-----BEGIN {label}-----\nMIIB\n-----END {label}-----\n");
        let (key, certificate) = (begin("PRIVATE KEY"), begin("CERTIFICATE"));
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n".to_owned();
        for (content, wanted, word) in [
            (
                begin("ENCRYPTED PRIVATE KEY"),
                PemKind::PrivateKey,
                "encrypted",
            ),
            (old, PemKind::PrivateKey, "encrypted"),
            (
                format!("\u{feff}{key}"),
                PemKind::PrivateKey,
                "byte order mark",
            ),
            (
                format!("\u{feff}{certificate}"),
                PemKind::Certificate,
                "byte order mark",
            ),
            (
                certificate.clone(),
                PemKind::PrivateKey,
                "a certificate where",
            ),
            (key.clone(), PemKind::Certificate, "a private key where"),
            (
                begin("PUBLIC KEY"),
                PemKind::PrivateKey,
                "a public key where",
            ),
            (begin("OPENSSH PRIVATE KEY"), PemKind::PrivateKey, "OpenSSH"),
            (
                begin("CERTIFICATE REQUEST"),
                PemKind::Certificate,
                "a request",
            ),
        ] {
            let fault = fault(content.as_bytes(), wanted).unwrap_or_default();
            assert!(fault.contains(word), "{content}: {fault}");
        }
        assert!(
            fault(b"\xff\xfe-\0", PemKind::PrivateKey)
                .unwrap()
                .contains("UTF-16")
        );
        assert!(
            fault(b"\x30\x82\x01", PemKind::Certificate)
                .unwrap()
                .contains("DER")
        );
        for (content, wanted) in [
            (key.clone(), PemKind::PrivateKey),
            (format!("{certificate}{key}"), PemKind::Certificate),
            (format!("{certificate}{key}"), PemKind::PrivateKey),
            ("garbage".to_owned(), PemKind::PrivateKey),
        ] {
            assert_eq!(fault(content.as_bytes(), wanted), None, "{content}");
        }
    }
}
