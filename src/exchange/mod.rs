//! The exchanges: what becomes of a lent connection, from the request to its row.
//!
//! ```text
//!  lend ──▶ pool ──▶ worker: ask upstream, relay, commit ──▶ give back
//!    │        ▲  ▲         │
//!    │        │  │         └── a stream that only flows ──▶ its client's loop relays it
//!    │        │  └──── its end, or anything to wait for ─────┘
//!    │        └── anything but a plain reply, or to wait for ──┐
//!    └──▶ in a lane: a short request, a plain reply, commit ────┴─▶ give back
//! ```
//!
//! A worker is a straight line of blocking code ([`worker`]): ask [`upstream`], [`relay`] the reply as it is
//! [`incoming`], hand row and tail to the recorder. What the request said is its row's [`draft`]; [`unasked`] knows who
//! tells counts without being asked, and what the log says of it its [`line`](mod@line). The [`pool`] gives it its jobs ([`job`]), as many at a time as [`admission`] lets
//! begin. While a stream does nothing but [`flow`], no thread of its own waits for its next event.
//!
//! A connection to upstream lies on the [`idle`], or one is made: [`dial`] has its [`addresses`] and its turn
//! ([`permits`]), both of which wait in a way that can be called off, and the [`wire`] is what becomes of it. A large
//! request's [`upload`] ends where upstream replies before it is whole, and its [`manners`] tell when a connection may be
//! used again. Whom TLS trusts stands in [`roots`], and why there is no reply in [`no_reply`]. The [`probe`] asks once at
//! the start.
//!
//! Where upstream agrees to a WebSocket, the connection is a [`tunnel`] from then on, and its client's loop relays it.
//!
//! Lanes ask short requests themselves ([`short`]). With a worker for each exchange, 16 clients got 0.37 of nginx's
//! rate and a lone one waited 1.8 times as long; without any recording 0.48 and 1.2, so that no database would have
//! helped.

pub mod addresses;
mod admission;
pub mod credential;
pub mod dial;
mod draft;
pub mod flow;
pub mod head_reader;
pub mod idle;
pub mod incoming;
pub mod job;
mod line;
pub mod manners;
mod no_reply;
mod outgoing;
pub mod permits;
mod polled;
pub mod pool;
pub mod probe;
pub mod relay;
pub mod relayed;
pub mod request;
pub mod roots;
pub mod short;
pub mod tunnel;
mod unasked;
mod upload;
pub mod upstream;
pub mod wire;
pub mod worker;

use std::sync::Arc;

use self::credential::FingerprintKey;
use crate::calendar::now_ms;
use crate::in_flight::InFlight;
use crate::models::SeenModels;
use crate::record::prompts::PromptMemory;
use crate::record::recorder::Recorder;
use crate::settings::Settings;
use crate::usage::UsageReport;
use crate::usage::listing::{ModelListing, ModelRoute};
use dial::UpstreamFacts;
use idle::IdleConnections;
use unasked::Unasked;

/// What all workers and lanes share.
pub struct Shared {
    /// The settings.
    pub settings: Settings,
    /// Where rows go.
    pub recorder: Arc<Recorder>,
    /// What is known of upstream.
    pub upstream: Arc<UpstreamFacts>,
    /// Connections to upstream that wait for the next exchange.
    pub idle: IdleConnections,
    /// Whose counts come unasked.
    pub unasked: Unasked,
    /// The last prompts.
    pub prompts: PromptMemory,
    /// What goes on now.
    pub in_flight: Arc<InFlight>,
    /// Which models upstream has loaded.
    pub models: Arc<SeenModels>,
    /// What credentials are fingerprinted with.
    pub fingerprints: Arc<FingerprintKey>,
}

impl Shared {
    /// Learns which models are loaded from the whole body of a reply about them.
    fn learn_of_models(&self, route: Option<ModelRoute>, status: u16, body: &[u8]) {
        let Some(route) = route.filter(|_| status == 200) else { return };
        if let Some(listing) = ModelListing::read(route, body) {
            self.models.learn(&listing, now_ms());
        }
    }

    /// The same from a reply, which began at `began_ms`, that tells that its model was loaded for it.
    fn learn_of_loading(&self, report: &UsageReport, began_ms: i64) {
        if let (Some(_), Some(model)) = (report.work.load_seconds, &report.model) {
            self.models.note_loading(model, began_ms, now_ms());
        }
    }
}
