//! `--demo`: a look at the proxy without LM Studio. The proxy itself is the real one; before it are made-up clients
//! ([`clients`]), behind it a stand-in for LM Studio ([`stand_in`]), and in its database some weeks of made-up use
//! ([`history`]).
//!
//! Nothing of the user's is read or written: no `.env`, of the environment but `RUST_LOG`, no database but one in a
//! temporary folder, which goes with the process; and nothing but loopback is listened on or connected to.

mod chance;
mod clients;
mod history;
mod stand_in;
mod words;

use std::fs::{self, DirBuilder};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::{env, io, process};

use crate::calendar::now_ms;
use crate::record::store::Store;
use crate::settings::{self, Settings, StartError};

/// What the demo has beside the proxy.
pub struct Demo {
    folder: Arc<DemoFolder>,
    /// Of the proxy that it needs.
    pub settings: Settings,
}

impl Demo {
    /// Makes the database and starts the stand-in.
    pub fn prepare() -> Result<Demo, StartError> {
        let folder = Arc::new(DemoFolder::make()?);
        let stand_in = stand_in::listen()?;
        let lookup = |name: &str| match name {
            "LM_STUDIO_URL" => Some(format!("http://{stand_in}")),
            // What matters here is on the page.
            "RUST_LOG" => {
                Some(env::var("RUST_LOG").unwrap_or_default()).filter(|l| !l.is_empty()).or(Some("warn".into()))
            }
            "UPSTREAM_CHECK" => Some("false".into()),
            // Nobody has to wait for clients that are made up.
            "SHUTDOWN_GRACE_S" => Some("0".into()),
            _ => None,
        };
        let (settings, _) = settings::read(lookup)?;
        let settings = Settings { database: folder.0.join("metrics.db"), ..settings };
        let mut store = Store::open(&settings.database, settings.db_sync).map_err(StartError::new)?;
        let written = history::write(&mut store, now_ms());
        written.map_err(|e| StartError::new(format_args!("the demo's database cannot be written: {e}")))?;
        Ok(Demo { folder, settings })
    }

    /// Lets the clients go on the proxy that listens there; what a user can do now. `page`: as a browser opens it.
    pub fn begin(&self, proxy: SocketAddr, page: &str) -> String {
        clients::start(proxy);
        format!(
            "Open   {page}   in a browser: four weeks of made-up use, and requests that go on.\n\
             Type   curl {page}stats   in another terminal.\n\
             Ctrl-C ends it, and nothing is kept. To record your own: start LM Studio's server, and this without --demo.\n"
        )
    }

    /// What is to be done where the process ends without dropping it.
    pub fn clean_up(&self) -> impl Fn() + Send + 'static {
        let folder = self.folder.clone();
        move || folder.remove()
    }
}

/// Whoever handles signals has the folder as long as the process lives.
impl Drop for Demo {
    fn drop(&mut self) {
        self.folder.remove();
    }
}

/// A folder of this process alone.
struct DemoFolder(PathBuf);

impl DemoFolder {
    fn make() -> io::Result<DemoFolder> {
        let path = env::temp_dir().join(format!("{}-demo-{}-{}", env!("CARGO_PKG_NAME"), process::id(), now_ms()));
        #[cfg_attr(not(unix), expect(unused_mut, reason = "only Unix has modes"))]
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        // Not one that somebody has put there.
        builder.create(&path)?;
        Ok(DemoFolder(path))
    }

    fn remove(&self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Drop for DemoFolder {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_folder_is_its_own_and_goes_with_it() {
        let demo = Demo::prepare().expect("a writable folder for temporary files");
        let (folder, settings) = (demo.folder.0.clone(), demo.settings.clone());
        assert!(settings.database.starts_with(&folder) && settings.database.exists());
        assert!(settings.host.is_loopback() && settings.upstream.authority.host() == "127.0.0.1");
        let mut store = Store::open(&settings.database, settings.db_sync).expect("ours");
        assert!(store.row_count().expect("readable") > 500 && store.pack_all().is_ok());
        drop((store, demo));
        assert!(!folder.exists());
        let demo = Demo::prepare().expect("a writable folder for temporary files");
        demo.clean_up()();
        assert!(!demo.folder.0.exists());
    }
}
