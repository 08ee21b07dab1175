//! The proxy put together: the door for `main` and for tests.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::{io, process, thread};

use ureq::tls::Certificate;

use crate::calendar::now_ms;
use crate::descriptors;
use crate::exchange::Shared;
use crate::exchange::credential::FingerprintKey;
use crate::exchange::dial::UpstreamFacts;
use crate::exchange::idle::IdleConnections;
use crate::exchange::roots::read_certificates;
use crate::exchange::worker;
use crate::front::{self, Front, Judge, Stop};
use crate::limits::AT_ONCE_TIME_MAX;
use crate::reach::Reach;
use crate::record::clean::Retention;
use crate::record::keeper::Keeper;
use crate::record::lock::Holder;
use crate::record::prompts::{PieceKey, PromptMemory};
use crate::record::recorder::Recorder;
use crate::record::store::Store;
use crate::record::unsaved;
use crate::settings::{Settings, StartError};
use crate::stats::sources::Sources;
use crate::stats::statistics::Statistics;
use crate::stats::{Power, Prices};

fn cannot_listen(address: SocketAddr, error: &io::Error) -> StartError {
    StartError::new(match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("port {} is in use: stop what uses it, or choose another with PORT", address.port())
        }
        _ => format!("cannot listen on {address} ({error}): set HOST and PORT"),
    })
}

/// What stands in the files that settings name.
#[derive(Clone, Default)]
pub struct NamedFiles {
    prices: Option<Arc<Prices>>,
    power: Option<Arc<Power>>,
    /// Of `UPSTREAM_CA`.
    pub own_roots: Vec<Certificate<'static>>,
}

impl NamedFiles {
    /// Reads them, and tells what is wrong with any.
    pub fn read(settings: &Settings) -> (NamedFiles, Vec<String>) {
        let prices = settings.model_prices.as_deref().map(Prices::load).transpose();
        let own_roots = settings.upstream_ca.as_deref().map(read_certificates).transpose();
        // A list that cannot be read may have a currency.
        let currency = match &prices {
            Ok(prices) => prices.as_ref().map(Prices::currency),
            Err(_) => Some(""),
        };
        let power = Power::new(settings.power_watts, settings.power_price.as_ref(), currency);
        let mut wrong = Vec::new();
        let files = NamedFiles {
            prices: prices.map_err(|e| wrong.push(e)).ok().flatten().map(Arc::new),
            power: power.map_err(|e| wrong.push(e)).ok().flatten().map(Arc::new),
            own_roots: own_roots.map_err(|e| wrong.push(e)).ok().flatten().unwrap_or_default(),
        };
        (files, wrong)
    }
}

/// A proxy that listens, and answers as soon as it [runs](Proxy::run).
pub struct Proxy {
    front: Front,
    keeper: Keeper,
    recorder: Arc<Recorder>,
    database: PathBuf,
    /// Where it listens; tells the port when it was asked to choose one.
    pub address: SocketAddr,
    /// Rows in the database at the start.
    pub rows: u64,
    /// Whether upstream can be reached, as far as exchanges have shown.
    pub reach: Arc<Reach>,
}

impl Proxy {
    /// Opens the database, listens, and starts what runs beside the front.
    pub fn start(settings: Settings, files: NamedFiles) -> Result<Proxy, StartError> {
        descriptors::ask_for_enough(settings.max_workers);
        let wanted = SocketAddr::new(settings.host, settings.port);
        let listener = front::listen(wanted).map_err(|e| cannot_listen(wanted, &e))?;
        let address = listener.local_addr()?;

        let name = format!("process {} at http://{address}", process::id());
        let holder = Holder { name, shares: settings.database_shared };
        let mut store = Store::open_locked(&settings.database, settings.db_sync, holder).map_err(StartError::new)?;
        let unreadable = |e: rusqlite::Error| {
            StartError::new(format_args!("the database {} cannot be read: {e}", settings.database.display()))
        };
        let rows = store.row_count().map_err(unreadable)?;
        let secret = store.fingerprint_key().map_err(unreadable)?;
        let recorder = Arc::new(Recorder::new(store));
        let retention = Retention {
            days: settings.retention_days,
            content_days: settings.content_days,
            content_bytes_max: settings.content_bytes_total_max,
        };
        let keeper = Keeper::start(settings.database.clone(), recorder.clone(), retention)?;
        let database = settings.database.clone();

        let upstream = Arc::new(UpstreamFacts::new(&settings, &files.own_roots));
        let judge = Judge::new(&settings);
        let grace = settings.shutdown_grace;
        let shared = Arc::new(Shared {
            settings,
            recorder: recorder.clone(),
            upstream,
            idle: IdleConnections::default(),
            unasked: Default::default(),
            prompts: PromptMemory::new(PieceKey::new(&secret)),
            in_flight: Arc::default(),
            models: Arc::default(),
            fingerprints: Arc::new(FingerprintKey::new(secret)),
        });
        let (in_flight, models, reach) =
            (shared.in_flight.clone(), shared.models.clone(), shared.upstream.reach.clone());
        let reached = reach.clone();
        let workers = worker::workers(shared.clone());
        let statistics = Statistics::start(Sources {
            database: database.clone(),
            prices: files.prices,
            power: files.power,
            counters: Arc::default(),
            recorder: recorder.clone(),
            workers: workers.clone(),
            in_flight,
            models,
            reach,
            started_s: now_ms() as f64 / 1000.0,
        })?;
        let front = Front::listening(listener, judge, shared, workers, statistics, grace)?;
        Ok(Proxy { front, keeper, recorder, database, address, rows, reach: reached })
    }

    /// The handle that stops it.
    pub fn stop(&self) -> Arc<Stop> {
        self.front.stop()
    }

    /// What is to be done where nobody waits for [`Proxy::run`]: keeps the rows that wait for the database in a file
    /// beside it, if that can be done at once, and says how many are kept or lost.
    pub fn last_words(&self) -> Box<dyn Fn() + Send> {
        let (recorder, database) = (self.recorder.clone(), self.database.clone());
        Box::new(move || {
            let waiting = || recorder.figures().waiting.load(Ordering::Relaxed);
            if waiting() == 0 {
                return;
            }
            let (saving, database, (done, is_done)) = (recorder.clone(), database.clone(), mpsc::channel());
            // Who holds the writer, or the disk, may be what does not answer.
            let saves = thread::Builder::new().spawn(move || {
                unsaved::save(&database, &saving);
                let _ = done.send(());
            });
            if saves.is_err() || is_done.recv_timeout(AT_ONCE_TIME_MAX).is_err() || waiting() > 0 {
                log::error!("{} rows are lost: the database did not take them before the end", waiting());
            }
        })
    }

    /// Answers until it is stopped and what runs has ended. Every row is written before it returns, or reported lost.
    pub fn run(mut self) -> io::Result<()> {
        let ran = self.front.run();
        drop(self.front);
        self.keeper.stop();
        ran
    }
}
