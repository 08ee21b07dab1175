//! Which credential asked, without keeping the credential: a short keyed fingerprint.
//!
//! Without the key nobody can try out guesses, and twelve hexadecimal digits are few enough that even with it a match
//! proves nothing, yet enough that a household's keys do not collide (48 bits: a thousand keys, one in 500 million).

use std::sync::Mutex;

use ring::hmac;

use crate::bell::lock;

/// Bytes of the HMAC that are shown, two hexadecimal digits each.
const FINGERPRINT_BYTES: usize = 6;

/// The key to the fingerprints, made once and kept in the database.
pub struct FingerprintKey {
    key: hmac::Key,
    /// The credential of the request before, in memory alone, and its fingerprint: the next one is nearly always the
    /// same, and an HMAC takes 6,400 of the 138,000 instructions of a request.
    last: Mutex<Option<(Vec<u8>, String)>>,
}

impl FingerprintKey {
    /// The key made of bytes that were kept.
    pub fn new(bytes: [u8; 32]) -> FingerprintKey {
        FingerprintKey { key: hmac::Key::new(hmac::HMAC_SHA256, &bytes), last: Mutex::default() }
    }

    /// The first twelve hexadecimal digits of the credential's HMAC-SHA256 (RFC 2104).
    pub fn fingerprint(&self, credential: &[u8]) -> String {
        let last = || lock(&self.last);
        if let Some((_, fingerprint)) = last().as_ref().filter(|(known, _)| known == credential) {
            return fingerprint.clone();
        }
        let fingerprint = self.compute(credential);
        *last() = Some((credential.to_vec(), fingerprint.clone()));
        fingerprint
    }

    fn compute(&self, credential: &[u8]) -> String {
        let tag = hmac::sign(&self.key, credential);
        tag.as_ref()[..FINGERPRINT_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The credential of a request: what follows the scheme in `Authorization` (RFC 9110 §11.6.2), else `x-api-key`, so
/// that one key is one fingerprint whichever way a client sends it. `None` where both are absent or empty.
pub fn credential<'a>(authorization: Option<&'a [u8]>, x_api_key: Option<&'a [u8]>) -> Option<&'a [u8]> {
    let filled = |value: &&[u8]| !value.is_empty();
    let token = authorization.map(|value| without_scheme(value.trim_ascii())).filter(filled);
    token.or(x_api_key.map(<[u8]>::trim_ascii).filter(filled))
}

/// A value of two words loses the first, whatever the scheme; a single word is a credential sent bare, unless it is
/// the scheme of one that is missing.
fn without_scheme(value: &[u8]) -> &[u8] {
    match value.iter().position(u8::is_ascii_whitespace) {
        Some(space) => value[space..].trim_ascii(),
        None if value.eq_ignore_ascii_case(b"Bearer") || value.eq_ignore_ascii_case(b"Basic") => b"",
        None => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(authorization: Option<&str>, x_api_key: Option<&str>, expected: Option<&str>) {
        let found = credential(authorization.map(str::as_bytes), x_api_key.map(str::as_bytes));
        assert_eq!(found, expected.map(str::as_bytes), "{authorization:?} {x_api_key:?}");
    }

    #[test]
    fn the_credential_is_what_follows_the_scheme() {
        check(Some("Bearer sk-1"), None, Some("sk-1"));
        check(Some("bEARER   sk-1 "), None, Some("sk-1"));
        check(Some("Basic dTpw"), None, Some("dTpw"));
        check(Some("sk-1"), None, Some("sk-1"));
        check(None, Some(" sk-2 "), Some("sk-2"));
        check(Some("Bearer sk-1"), Some("sk-2"), Some("sk-1"));
    }

    #[test]
    fn an_empty_credential_is_none() {
        check(None, None, None);
        check(Some(""), Some(""), None);
        check(Some("Bearer"), None, None);
        check(Some("bearer  "), None, None);
        check(Some("Bearer "), Some("sk-2"), Some("sk-2"));
        check(None, Some("  "), None);
    }

    #[test]
    fn the_fingerprint_is_hmac_sha256() {
        // RFC 4231 §4.3 pads its key "Jefe" to the block, as HMAC does with any short key: zeros behind it are the
        // same.
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(b"Jefe");
        let key = FingerprintKey::new(bytes);
        assert_eq!(key.fingerprint(b"what do ya want for nothing?"), "5bdcc146bf60");
    }

    #[test]
    fn keys_differ_and_a_kept_key_gives_the_same_fingerprint() {
        let (one, other) = (FingerprintKey::new([1; 32]), FingerprintKey::new([2; 32]));
        assert_ne!(one.fingerprint(b"sk-1"), other.fingerprint(b"sk-1"));
        assert_ne!(one.fingerprint(b"sk-1"), one.fingerprint(b"sk-2"));
        assert_eq!(FingerprintKey::new([1; 32]).fingerprint(b"sk-1"), one.fingerprint(b"sk-1"));
        assert_eq!(one.fingerprint(b"sk-1"), one.fingerprint(b"sk-1"));
        assert_ne!(one.fingerprint(b""), one.fingerprint(b"sk-1"));
    }
}
