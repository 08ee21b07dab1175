//! What `/metrics` tells of the process: what is counted in memory alone, and what the process itself takes, as Linux
//! tells it in `/proc`.

use std::sync::atomic::Ordering::Relaxed;

use super::exposition::{Exposition, FamilyKind, MetricPage};
use super::sources::Sources;
use crate::in_flight::ExchangePhase;
use crate::logging;

/// While the database cannot be read it is all there is to scrape: counters of all time are left out, for at zero they
/// would seem to have begun anew.
pub(super) fn of_process(sources: &Sources, form: Exposition, listeners: usize, database_up: bool) -> String {
    let mut page = MetricPage::new(form);
    add_now(&mut page, sources, listeners, database_up);
    add_since_start(&mut page, sources);
    ProcessFigures::read().add_to(&mut page, sources.started_s);
    page.into_text()
}

#[rustfmt::skip] // One metric, one line.
fn add_now(page: &mut MetricPage, sources: &Sources, listeners: usize, database_up: bool) {
    let (load, rows) = (sources.workers.load(), sources.recorder.figures());
    page.gauge("lms_proxy_database_up", "Whether the database could be read for this scrape; if not, its metrics are missing.", u8::from(database_up));
    if let Some((is_up, _)) = sources.reach.known() {
        page.gauge("lms_proxy_upstream_up", "Whether the last attempt to connect to LM Studio had success; missing before the first.", u8::from(is_up));
    }
    page.gauge("lms_proxy_exchanges_in_flight", "Exchanges begun and not ended.", load.in_flight);
    page.gauge("lms_proxy_exchanges_queued", "Requests that wait for a worker.", load.queued);
    let all = sources.in_flight.all();
    let mut family = page.family(FamilyKind::Gauge, "lms_proxy_exchanges", "What goes on, by how far it is; generations on WebSockets, too.");
    for phase in ExchangePhase::all() {
        let count = all.iter().filter(|one| one.phase().0 == phase).count();
        family.sample(&[("phase", phase.as_str())], count);
    }
    let models = sources.models.all();
    let mut family = page.family(FamilyKind::Gauge, "lms_proxy_model_loaded", "Whether a model that was seen loaded still is, as far as what passes tells.");
    for (model, known) in &models {
        family.sample(&[("model", model)], u8::from(known.is_loaded));
    }
    let mut family = page.family(FamilyKind::Gauge, "lms_proxy_model_context_tokens", "Tokens that the context of a loaded model holds, where that was told.");
    for (model, known) in models.iter().filter(|(_, known)| known.is_loaded) {
        if let Some(tokens) = known.context_tokens {
            family.sample(&[("model", model)], tokens);
        }
    }
    page.gauge("lms_proxy_worker_threads", "Worker threads, busy or not.", load.workers);
    page.gauge("lms_proxy_connections", "Client connections that are open.", sources.counters.connections.load(Relaxed));
    page.gauge("lms_proxy_websockets", "WebSockets that are open.", sources.counters.sockets.load(Relaxed));
    page.gauge("lms_proxy_live_listeners", "Listeners of /stats/live.", listeners);
    page.gauge("lms_proxy_rows_waiting", "Rows in memory that the database does not take at present.", rows.waiting.load(Relaxed));
    page.gauge("lms_proxy_database_size_bytes", "The database file with its write-ahead log.", sources.database_bytes());
}

#[rustfmt::skip] // One metric, one line.
fn add_since_start(page: &mut MetricPage, sources: &Sources) {
    let (rows, started_s) = (sources.recorder.figures(), sources.started_s);
    page.counter("lms_proxy_rows_written", "Rows committed since the start.", rows.written.load(Relaxed), started_s);
    page.counter("lms_proxy_rows_dropped", "Rows lost since the start; any is an error.", rows.dropped.load(Relaxed), started_s);
    page.counter("lms_proxy_contents_dropped", "Rows kept without prompt and output since the start, for too much waited for the database.", rows.contents_dropped.load(Relaxed), started_s);
    page.counter("lms_proxy_log_lines_lost", "Lines of the log that the standard error stream did not take, since the start.", logging::lines_lost(), started_s);
    let mut family = page.family(FamilyKind::Counter, "lms_proxy_refusals", "Requests refused before they were forwarded, since the start.");
    for (reason, count) in sources.counters.refusals() {
        family.count(&[("reason", reason)], count, started_s);
    }
    page.family(FamilyKind::Info, "lms_proxy_build", "Always 1; the version is a label.").sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
}

/// Under the names that [client libraries of Prometheus](https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics)
/// give them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct ProcessFigures {
    /// Time of the processor, its own and the system's for it.
    cpu_seconds: Option<f64>,
    /// Memory that is there.
    resident_bytes: Option<u64>,
    /// Memory that is addressed.
    virtual_bytes: Option<u64>,
    /// Files and connections that are open,
    open_fds: Option<u64>,
    /// and how many may be.
    max_fds: Option<u64>,
}

impl ProcessFigures {
    /// As they are now.
    #[cfg(target_os = "linux")]
    fn read() -> ProcessFigures {
        use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
        use nix::sys::time::TimeValLike;

        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
        // One of them is the folder that is looked at.
        let open = std::fs::read_dir("/proc/self/fd").ok().map(|open| (open.count() as u64).saturating_sub(1));
        ProcessFigures {
            cpu_seconds: usage
                .map(|usage| (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1_000_000.0),
            resident_bytes: bytes_of(&status, "VmRSS:"),
            virtual_bytes: bytes_of(&status, "VmSize:"),
            open_fds: open,
            max_fds: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
        }
    }

    /// Nothing is known of them.
    #[cfg(not(target_os = "linux"))]
    fn read() -> ProcessFigures {
        ProcessFigures::default()
    }

    /// What is not known is left out.
    #[rustfmt::skip] // One metric, one line.
    fn add_to(&self, page: &mut MetricPage, started_s: f64) {
        page.gauge("process_start_time_seconds", "When the proxy was started, in seconds since 1970.", started_s);
        if let Some(cpu_seconds) = self.cpu_seconds {
            page.counter("process_cpu_seconds", "Time of the processor, the system's for the proxy included.", cpu_seconds, started_s);
        }
        let gauges = [
            ("process_resident_memory_bytes", "Memory that is in use.", self.resident_bytes),
            ("process_virtual_memory_bytes", "Memory that is addressed.", self.virtual_bytes),
            ("process_open_fds", "Files and connections that are open.", self.open_fds),
            ("process_max_fds", "How many may be open.", self.max_fds),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                page.gauge(name, help, value);
            }
        }
    }
}

/// A figure of `/proc/self/status` (proc(5)), which is told in kibibytes.
#[cfg(target_os = "linux")]
fn bytes_of(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_linux_tells_is_in_bytes_and_what_it_does_not_tell_is_unknown() {
        let status = "Name:\tproxy\nVmSize:\t   20480 kB\nVmRSS:\t     100 kB\nVmLck:\t 7\n";
        assert_eq!(bytes_of(status, "VmRSS:"), Some(102_400));
        assert_eq!(bytes_of(status, "VmSize:"), Some(20_971_520));
        assert_eq!(bytes_of(status, "VmLck:"), None);
        assert_eq!(bytes_of(status, "VmSwap:"), None);
        let now = ProcessFigures::read();
        assert!(now.cpu_seconds.is_some_and(|s| s > 0.0) && now.resident_bytes < now.virtual_bytes, "{now:?}");
        // Some are open whatever tests run beside this one.
        assert!(now.open_fds.is_some_and(|open| open >= 3) && now.open_fds < now.max_fds, "{now:?}");
    }
}
