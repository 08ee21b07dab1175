//! Why there is no reply to relay, and what to do about it: the words of the 502, of its row and of the log.

use std::io;

use rustls::CertificateError;

use crate::settings::UpstreamUrl;

/// Why there is no reply to relay.
#[derive(Debug)]
pub enum NoReply {
    /// No connection came about: the reason in plain words, and what to do.
    Unreachable(String, &'static str),
    /// The connection ended or broke before a whole head had come.
    Failed(String),
    /// The system gave no descriptor for a connection: the reason in plain words.
    NoRoom(String),
    /// Upstream was silent for longer than `UPSTREAM_IDLE_TIMEOUT_S`, or did not accept a connection in time.
    TimedOut(String),
}

const START_IT: &str = "Is its server started?";
const CHECK_NAME: &str = "Is the name in LM_STUDIO_URL right, and does this machine know it?";
const TRY_HTTP: &str = "LM Studio itself speaks plain HTTP: try http:// instead of https:// in LM_STUDIO_URL.";
const NAME_CA: &str = "If it is yours, name the certificate of its CA, a PEM file, in UPSTREAM_CA.";
const MAKE_ANOTHER: &str = "Make it one for a server (basicConstraints=CA:FALSE), and name its file in UPSTREAM_CA.";
const USE_ITS_NAME: &str = "Use a name that it is for in LM_STUDIO_URL.";
const RENEW: &str = "Renew it; or is a clock wrong?";
const LOOK_THERE: &str = "What answers there, and with which TLS, its own log says.";
/// What plain HTTP gets from a server that speaks TLS is no reply at all, as a rule.
const TRY_HTTPS: &str = "If it speaks TLS, LM_STUDIO_URL begins with https://.";

impl NoReply {
    /// Nobody listens there, or nobody can be reached.
    pub fn not_there(why: String) -> NoReply {
        NoReply::Unreachable(why, START_IT)
    }

    /// Nobody knows the name.
    pub fn not_known() -> NoReply {
        NoReply::Unreachable("its name is not known".into(), CHECK_NAME)
    }

    /// No name server has said anything about the name.
    pub fn not_looked_up() -> NoReply {
        let why = "its name was not looked up in time (does this machine's name server answer, and is the name right?)";
        NoReply::TimedOut(why.into())
    }

    /// The handshake failed by what `error` tells.
    pub fn of_handshake(error: &(dyn std::error::Error + 'static)) -> NoReply {
        if let Some(tls) = rustls_error(error) {
            let (why, advice) = words(tls);
            return NoReply::Unreachable(format!("TLS: {why}"), advice);
        }
        let ended = error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() != io::ErrorKind::InvalidData);
        match ended {
            true => {
                NoReply::Unreachable("TLS: it ended the connection in the middle of the handshake".into(), TRY_HTTP)
            }
            false => NoReply::Unreachable(format!("TLS: {error}"), LOOK_THERE),
        }
    }

    /// What came is no HTTP. `is_encrypted`: by TLS.
    pub fn no_http(why: &dyn std::fmt::Display, is_encrypted: bool) -> NoReply {
        let advice = if is_encrypted { String::new() } else { format!(". {}", TRY_HTTPS.trim_end_matches('.')) };
        NoReply::Failed(format!("its reply is not valid HTTP ({why}){advice}"))
    }

    /// The status, code and words of the answer that the client gets in its place.
    pub fn told(&self, base: &UpstreamUrl) -> (u16, &'static str, String) {
        match self {
            NoReply::Unreachable(why, advice) => {
                let message = format!("LM Studio does not answer at {base} ({why}). {advice}");
                (502, "upstream_unreachable", message)
            }
            NoReply::Failed(why) => {
                (502, "upstream_failed", format!("LM Studio at {base} gave no usable reply: {why}."))
            }
            NoReply::NoRoom(why) => {
                let message = format!("The proxy cannot open a connection to LM Studio ({why}): too much at once.");
                (503, "overloaded", message)
            }
            NoReply::TimedOut(why) => {
                (504, "upstream_timeout", format!("LM Studio at {base} did not answer in time: {why}."))
            }
        }
    }
}

/// Whether upstream's certificate leads to none that is trusted: another set of those may do.
pub fn is_untrusted(error: &ureq::Error) -> bool {
    let ureq::Error::Other(error) = error else { return false };
    matches!(rustls_error(error.as_ref()), Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)))
}

/// The error of TLS within one of input.
fn rustls_error<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e rustls::Error> {
    let inner = match error.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref().and_then(|inner| inner.downcast_ref()),
        None => error.downcast_ref(),
    };
    inner.or_else(|| error.source().and_then(|source| source.downcast_ref()))
}

fn words(error: &rustls::Error) -> (String, &'static str) {
    let certificate = match error {
        rustls::Error::InvalidCertificate(certificate) => certificate,
        // The first bytes of an answer in plain HTTP.
        rustls::Error::InvalidMessage(_) => return ("what it says is no TLS".into(), TRY_HTTP),
        other => return (other.to_string(), LOOK_THERE),
    };
    match certificate {
        CertificateError::UnknownIssuer => {
            ("its certificate is signed by itself, or by a CA that is not known here".into(), NAME_CA)
        }
        CertificateError::NotValidForName => ("its certificate is for another name".into(), USE_ITS_NAME),
        CertificateError::NotValidForNameContext { presented, .. } => {
            (format!("its certificate is for another name: {}", presented.join(", ")), USE_ITS_NAME)
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ("its certificate has expired".into(), RENEW)
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("its certificate is not valid yet".into(), RENEW)
        }
        // A name is all that rustls keeps of what webpki says of it.
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            ("its certificate is that of a CA, signed by itself, and none for a server".into(), MAKE_ANOTHER)
        }
        other => (format!("its certificate cannot be used ({other})"), LOOK_THERE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(why: NoReply) -> String {
        let (settings, _) = crate::settings::read(|_| None).expect("defaults are good");
        why.told(&settings.upstream).2
    }

    fn told(error: rustls::Error) -> String {
        words_of(NoReply::of_handshake(&io::Error::new(io::ErrorKind::InvalidData, error)))
    }

    #[test]
    fn a_name_that_nobody_knows_is_said_to_be_none() {
        let told = words_of(NoReply::not_known());
        assert!(told.contains("(its name is not known). Is the name in LM_STUDIO_URL right"), "{told}");
    }

    #[test]
    fn each_failure_of_tls_says_what_is_wrong_and_what_to_do() {
        let check = |error: CertificateError, words: &str, advice: &str| {
            let told = told(rustls::Error::InvalidCertificate(error));
            assert!(told.contains(words) && told.contains(advice) && !told.contains(START_IT), "{told}");
        };
        check(CertificateError::UnknownIssuer, "signed by itself, or by a CA", "UPSTREAM_CA");
        check(CertificateError::NotValidForName, "for another name", "LM_STUDIO_URL");
        check(CertificateError::Expired, "has expired", "Renew");
        check(CertificateError::NotValidYet, "not valid yet", "clock");
        let plain = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        assert!(told(plain).contains("try http://"));
        let ended = NoReply::of_handshake(&io::Error::from(io::ErrorKind::UnexpectedEof));
        assert!(matches!(ended, NoReply::Unreachable(_, TRY_HTTP)), "{ended:?}");
    }
}
