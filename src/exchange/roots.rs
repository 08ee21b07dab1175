//! The certificates that upstream's may be signed with: those of the web, and before them those of `UPSTREAM_CA`.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use ureq::config::Config;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::{ConnectionDetails, RustlsConnector};

use super::no_reply::is_untrusted;
use super::wire::Wire;
use crate::limits::CA_FILE_BYTES_MAX;

/// The certificates of a file (`UPSTREAM_CA`), each of which can be one that others are signed with. An error is one
/// line that says what to do.
pub fn read_certificates(path: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let wrong = |what: &str| format!("UPSTREAM_CA: {} {what}", path.display());
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(CA_FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|e| wrong(&format!("cannot be read: {e}")))?;
    if bytes.len() as u64 > CA_FILE_BYTES_MAX {
        return Err(wrong(&format!("is longer than {CA_FILE_BYTES_MAX} bytes: it takes a file of certificates")));
    }
    let mut certificates = Vec::new();
    for item in parse_pem(&bytes) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(_) => return Err(wrong("is no PEM file: a part of it cannot be read")),
        }
    }
    if certificates.is_empty() {
        return Err(wrong("holds no certificate: it takes PEM, which begins with -----BEGIN CERTIFICATE-----"));
    }
    let mut store = RootCertStore::empty();
    for (at, certificate) in certificates.iter().enumerate() {
        let added = store.add(CertificateDer::from(certificate.der()));
        added.map_err(|e| wrong(&format!("holds a certificate, number {}, that cannot be used: {e}", at + 1)))?;
    }
    Ok(certificates)
}

/// TLS by each set of certificates that is trusted.
pub struct Trust {
    /// For ureq, which takes one set a configuration.
    sets: Vec<(Config, RustlsConnector)>,
    /// The set that served last.
    served: AtomicUsize,
}

impl Trust {
    /// `own`: those of `UPSTREAM_CA`.
    pub fn new(own: &[Certificate<'static>], config: fn(RootCerts) -> Config) -> Trust {
        let own = (!own.is_empty()).then(|| RootCerts::new_with_certs(own));
        let sets = own.into_iter().chain([RootCerts::WebPki]);
        Trust { sets: sets.map(|roots| (config(roots), RustlsConnector::default())).collect(), served: 0.into() }
    }

    /// Makes TLS of a connection that `dial` makes: of another one, with other certificates, where upstream's leads to
    /// none of the first ones.
    pub fn connect<T>(
        &self,
        details: &ConnectionDetails,
        mut dial: impl FnMut() -> Result<Wire, ureq::Error>,
        mut encrypt: impl FnMut(&RustlsConnector, &ConnectionDetails, Wire) -> Result<T, ureq::Error>,
    ) -> Result<T, ureq::Error> {
        let first = self.served.load(Ordering::Relaxed);
        let order = (0..self.sets.len()).map(|at| (first + at) % self.sets.len());
        let mut refused = None;
        for at in order {
            let (config, connector) = &self.sets[at];
            match encrypt(connector, &with_config(details, config), dial()?) {
                Err(e) if is_untrusted(&e) => refused = Some(e),
                other => {
                    self.served.store(at, Ordering::Relaxed);
                    return other;
                }
            }
        }
        Err(refused.unwrap_or(ureq::Error::ConnectionFailed))
    }
}

fn with_config<'a>(details: &ConnectionDetails<'a>, config: &'a Config) -> ConnectionDetails<'a> {
    ConnectionDetails {
        uri: details.uri,
        addrs: details.addrs.clone(),
        config,
        request_level: details.request_level,
        resolver: details.resolver,
        now: details.now,
        timeout: details.timeout,
        current_time: details.current_time.clone(),
        run_connector: details.run_connector.clone(),
        register_shutdown: details.register_shutdown.clone(),
    }
}

/// The part of a configuration that says whom to trust.
pub fn tls_config(roots: RootCerts) -> TlsConfig {
    TlsConfig::builder().root_certs(roots).build()
}
