//! An upstream behind TLS: which certificates are trusted, and what is said where one is not.
//!
//! The certificates beside this file are made for these tests and good for nothing else: `ca.pem` signed `local.pem`
//! (localhost, 127.0.0.1) and `other.pem` (studio.example), `itself.pem` is that of a CA and of a server at once.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::harness::*;

fn certificates() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/proxy/certificates")
}

fn path_of(name: &str) -> String {
    certificates().join(name).to_str().expect("text").to_owned()
}

/// A server with this certificate that answers each connection once, with a chat.
fn server(certificate: &str) -> SocketAddr {
    let file = |ending: &str| certificates().join(format!("{certificate}.{ending}"));
    let chain = vec![CertificateDer::from_pem_file(file("pem")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(file("key")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).expect("they fit"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let config = config.clone();
            thread::spawn(move || {
                let connection = ServerConnection::new(config).expect("a good configuration");
                answer(StreamOwned::new(connection, stream))
            });
        }
    });
    address
}

/// A client that does not trust the server leaves within the handshake.
fn answer(mut stream: StreamOwned<ServerConnection, TcpStream>) -> Option<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut bytes = [0; 4096];
        let n = stream.read(&mut bytes).ok().filter(|n| *n > 0)?;
        request.extend_from_slice(&bytes[..n]);
    }
    stream.write_all(&chat_reply()).and_then(|()| stream.flush()).ok()
}

fn before(url: &str, ca: &str) -> Proxy {
    Proxy::start(&Folder::new().into(), &[("LM_STUDIO_URL", url), ("UPSTREAM_CA", ca)])
}

/// What the 502 says, which its row says as well.
fn told(url: &str, ca: &str) -> String {
    let proxy = before(url, ca);
    let reply = proxy.ask(chat());
    assert_eq!(reply.status(), 502, "{}", reply.text());
    let message = reply.json()["error"]["message"].as_str().expect("a sentence").to_owned();
    assert_eq!(proxy.row().error_message.as_deref(), Some(message.as_str()));
    assert!(!message.contains("Is its server started?"), "{message}");
    message
}

#[test]
fn an_upstream_signed_by_a_ca_of_one_s_own_is_trusted_where_upstream_ca_names_it() {
    let url = format!("https://localhost:{}", server("local").port());
    let proxy = before(&url, &path_of("ca.pem"));
    for _ in 0..2 {
        assert_eq!(proxy.ask(chat()).text(), CHAT_REPLY);
    }
    let message = told(&url, "");
    assert!(message.contains("signed by itself, or by a CA that is not known here") && message.contains("UPSTREAM_CA"));
    // Another CA's does not do.
    assert!(told(&url, &path_of("itself.pem")).contains("UPSTREAM_CA"));
}

#[test]
fn what_is_wrong_with_a_certificate_is_said() {
    let check = |certificate: &str, ca: &str, words: &[&str]| {
        let message = told(&format!("https://localhost:{}", server(certificate).port()), &path_of(ca));
        assert!(words.iter().all(|word| message.contains(word)), "{message} lacks one of {words:?}");
    };
    check("other", "ca.pem", &["for another name", "studio.example", "LM_STUDIO_URL"]);
    check("itself", "itself.pem", &["that of a CA", "CA:FALSE"]);
}

#[test]
fn https_at_a_server_of_plain_http_is_answered_with_the_scheme_to_try() {
    // One says what it thinks of a TLS handshake, the other closes.
    for says in ["HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", ""] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a bound socket").port();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(says.as_bytes());
            }
        });
        let message = told(&format!("https://localhost:{port}"), "");
        assert!(message.contains("TLS: ") && message.contains("try http://"), "{message}");
    }
}

#[test]
fn http_at_a_server_of_tls_is_answered_with_the_scheme_to_try() {
    let proxy = before(&format!("http://localhost:{}", server("local").port()), "");
    let reply = proxy.ask(chat());
    assert!(reply.status() == 502 && reply.text().contains("begins with https://"), "{}", reply.text());
}

#[test]
fn a_file_of_certificates_that_holds_none_is_exit_code_2() {
    let folder = Folder::new();
    for (content, words) in [
        ("", "holds no certificate"),
        ("nonsense\n", "holds no certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be used"),
        ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "is no PEM file"),
    ] {
        std::fs::write(folder.path().join("ca.pem"), content).expect("writable");
        let output = command(folder.path()).env("UPSTREAM_CA", "ca.pem").env("PORT", "0").output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains("UPSTREAM_CA: ca.pem ") && said.contains(words), "{said}");
    }
}
