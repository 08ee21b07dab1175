//! The program: flags, settings, log, then the proxy until it is told to stop.

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

#[cfg(unix)]
use nix::sys::signal::{SigSet, Signal};

use lms_metrics_proxy::demo::Demo;
use lms_metrics_proxy::front::StopAsked;
use lms_metrics_proxy::greeting::{greet, pages};
use lms_metrics_proxy::logging::{self, LogLook};
use lms_metrics_proxy::proxy::{NamedFiles, Proxy};
use lms_metrics_proxy::settings::{self, Flag, Given, ReadSettings, Settings, StartError};

/// How long `--health` waits for the answer.
const HEALTH_TIME_MAX: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let obeyed = obey();
    if let Err(e) = &obeyed {
        e.to_string().lines().for_each(logging::say);
    }
    logging::finish();
    obeyed.map_or_else(|e| ExitCode::from(e.exit_code()), |()| ExitCode::SUCCESS)
}

/// Does what the arguments say.
fn obey() -> Result<(), StartError> {
    let flag = settings::flags(std::env::args_os().skip(1))?;
    match flag {
        Flag::Help => say(&settings::help_text()),
        Flag::Version => say(concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"), "\n")),
        Flag::Check => check(&settings::from_environment())?,
        Flag::Health => health(&settings::from_environment().read().taken()?.0)?,
        Flag::Run => {
            begin_with_own_heap();
            leave_hangup_ignored();
            let (read, files) = with_files(settings::from_environment().read());
            let (settings, warnings) = read.taken()?;
            run(settings, files, &warnings, None)?;
        }
        Flag::Demo => {
            leave_hangup_ignored();
            let held = HeldSignals::hold();
            let demo = Demo::prepare()?;
            run(demo.settings.clone(), NamedFiles::default(), &[], Some((demo, held)))?;
        }
    }
    Ok(())
}

/// Begins anew, as the same process, with a heap that suits it: [`HEAP`]. Only the environment tells glibc, and only at the
/// start.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn begin_with_own_heap() {
    use std::os::unix::process::CommandExt;
    use std::path::Path;
    use std::process::Command;

    const TUNABLES: &str = "GLIBC_TUNABLES";
    // Stays, whatever takes the other one away: it begins anew once.
    const BEGUN: &str = "LMS_METRICS_PROXY_BEGUN";
    let is_told = [TUNABLES, "MALLOC_ARENA_MAX", BEGUN].iter().any(|name| std::env::var_os(name).is_some());
    let mut arguments = std::env::args_os();
    let Some((program, name)) = std::env::current_exe().ok().zip(arguments.next()).filter(|_| !is_told) else { return };
    // Under a loader that was called by name, the program is the loader.
    if program.file_name() != Path::new(&name).file_name() {
        return;
    }
    // It comes back only where it fails. Then memory is as it is.
    let _ = Command::new(program).arg0(name).args(arguments).env(TUNABLES, HEAP).env(BEGUN, "1").exec();
}

/// <https://www.gnu.org/software/libc/manual/html_node/Memory-Allocation-Tunables.html>
///
/// - One part. Of each thread that asks for memory while another one does, glibc makes a part of its own, up to eight for
///   each processor, and what a burst took stays in all of them: a thousand streams at once leave 40 MB behind instead of 28
///   with two parts. With what follows, one is as quick as two: 37.3 MB at the peak with two, 34.7 with one.
/// - Each thread keeps up to 32 free pieces of a size at hand, instead of 7: so many rows are given back together. 64
///   clients' requests took 23.3 us of processor time, and take 21.7.
/// - A few free megabytes stay, for the next body: eight agents' requests, of 200 KB, had the system give them and take
///   them back for each, 20 us of 390. Setting that takes from glibc its own rule for what is kept apart from the heap, so
///   the bound is the largest that it has: with 2 MB each page of a body of 3 MB came anew from the system.
///
/// musl, of which released programs for Linux are made, takes nothing of this.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const HEAP: &str = "glibc.malloc.arena_max=1:glibc.malloc.tcache_count=32:glibc.malloc.trim_threshold=4194304:\
                    glibc.malloc.mmap_threshold=33554432";

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn begin_with_own_heap() {}

/// A SIGHUP that is ignored at the start stays so, as `nohup` wants it; ctrlc would have it end the process. No thread
/// that begins from now on takes one.
#[cfg(target_os = "linux")]
fn leave_hangup_ignored() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // A bit for each signal, from 1 on.
    let ignored = ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0);
    if ignored >> (Signal::SIGHUP as u32 - 1) & 1 == 1 {
        let _ = SigSet::from_iter([Signal::SIGHUP]).thread_block();
    }
}

#[cfg(not(target_os = "linux"))]
fn leave_hangup_ignored() {}

/// Those signals wait that ask a process to end, for as long as this is kept: one that ended it before they are handled
/// would leave the demo's folder behind. Threads that begin meanwhile take none at all.
struct HeldSignals {
    #[cfg(unix)]
    before: Option<SigSet>,
}

impl HeldSignals {
    #[cfg(unix)]
    fn hold() -> HeldSignals {
        let before = SigSet::thread_get_mask().ok();
        // Where that fails, they end the process as ever.
        let _ = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]).thread_block();
        HeldSignals { before }
    }

    #[cfg(not(unix))]
    fn hold() -> HeldSignals {
        HeldSignals {}
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        #[cfg(unix)]
        let _ = self.before.map(|before| before.thread_set_mask());
    }
}

/// Shows the settings, and what would be said of them at the start.
fn check(given: &Given) -> Result<(), StartError> {
    say(&given.table());
    let (read, _) = with_files(given.read());
    read.warnings.iter().for_each(|warning| logging::say(warning));
    read.taken().map(|_| ())
}

/// The files that settings name. What is wrong with them is told beside what is wrong with others.
fn with_files(mut read: ReadSettings) -> (ReadSettings, NamedFiles) {
    let (files, wrong) = NamedFiles::read(&read.settings);
    read.wrong.extend(wrong);
    (read, files)
}

fn run(
    settings: Settings,
    files: NamedFiles,
    warnings: &[String],
    demo: Option<(Demo, HeldSignals)>,
) -> Result<(), StartError> {
    // The demo's folder is removed before a signal that waits ends the process.
    let (held, demo) = demo.map(|(demo, held)| (held, demo)).unzip();
    let failed = |what: &str, e: &dyn Display| StartError::new(format_args!("{what}: {e}"));
    let look = if settings.log_json { LogLook::Json } else { LogLook::for_people() };
    logging::start(settings.log_level, look).map_err(|e| failed("the system gives no thread for the log", &e))?;
    // A bug ends one exchange, not the process: one line in the log like any other.
    std::panic::set_hook(Box::new(|bug| {
        log::error!("bug in {}: {bug}", thread::current().name().unwrap_or("a thread without a name"));
    }));
    for warning in warnings {
        log::warn!("{warning}");
    }
    let proxy = Proxy::start(settings.clone(), files.clone()).or_else(|e| match demo {
        // Its port may be somebody else's.
        Some(_) => Proxy::start(Settings { port: 0, ..settings.clone() }, files.clone()),
        None => Err(e),
    })?;
    let stop = proxy.stop();
    let last_words = proxy.last_words();
    let clean_up = demo.as_ref().map(Demo::clean_up);
    let on_signal = move || match stop.ask(Instant::now()) {
        StopAsked::First => log::info!("told to stop: finishing what runs"),
        StopAsked::Same => log::debug!("told to stop twice at once, which counts as one"),
        StopAsked::Again => {
            log::warn!("told to stop again: ending at once");
            last_words();
            clean_up.iter().for_each(|clean_up| clean_up());
            logging::finish();
            std::process::exit(1);
        }
    };
    ctrlc::set_handler(on_signal).map_err(|e| failed("signals cannot be caught", &e))?;
    drop(held);
    match &demo {
        None => greet(&proxy, settings, files),
        Some(demo) => say(&demo.begin(proxy.address, &pages(proxy.address)[0])),
    }

    proxy.run().map_err(|e| failed("the event loop failed", &e))?;
    log::info!("stopped");
    Ok(())
}

/// Asks the running proxy how it is: exit code 0 or 1.
fn health(settings: &Settings) -> Result<(), StartError> {
    let host = match settings.host {
        any if any.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        one => one,
    };
    let address = SocketAddr::new(host, settings.port);
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, HEALTH_TIME_MAX)?;
        stream.set_read_timeout(Some(HEALTH_TIME_MAX))?;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut reply = Vec::new();
        stream.take(4096).read_to_end(&mut reply)?;
        Ok(reply.starts_with(b"HTTP/1.1 200 "))
    };
    match ask() {
        Ok(true) => Ok(()),
        Ok(false) => Err(StartError::new(format_args!("{address} answers, but not as this proxy does"))),
        Err(e) => Err(StartError::new(format_args!("{address} does not answer: {e}"))),
    }
}

fn say(text: &str) {
    // A closed pipe (`--help | head -1`) is no reason to complain. A pager that waits is waited for: nothing else runs.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
