//! Whether LM Studio answers, asked once at the start: no exchange, no row, and nobody waits for it.

use std::sync::Arc;

use ureq::tls::Certificate;

use super::dial::UpstreamFacts;
use super::upstream::UpstreamConnection;
use crate::limits::PROBE_SILENCE_MAX;
use crate::settings::Settings;

/// Asks for the models, by a way to upstream of its own. An error says why there is no answer, and what to do.
pub fn answers(settings: &Settings, own_roots: &[Certificate<'static>]) -> Result<(), String> {
    let settings = Settings { upstream_idle_timeout: Some(PROBE_SILENCE_MAX), ..settings.clone() };
    let mut upstream = UpstreamConnection::new(&Arc::new(UpstreamFacts::new(&settings, own_roots)));
    let agent = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
    let fields: [(&str, &[u8]); 2] = [("user-agent", agent.as_bytes()), ("accept", b"*/*")];
    let asked = upstream.ask("GET", "/v1/models", &fields, false);
    asked.map(drop).map_err(|why| why.told(&settings.upstream).2)
}
