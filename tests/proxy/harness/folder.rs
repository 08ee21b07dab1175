use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, io, process};

/// A folder of its own for each test, gone afterwards.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static MADE: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = MADE.fetch_add(1, Ordering::Relaxed);
            let path = env::temp_dir().join(format!("lms_metrics_proxy-test-{}-{number}", process::id()));
            match fs::create_dir(&path) {
                // An earlier process of this number was killed, or could not remove it: Windows keeps what is open.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                made => {
                    made.expect("the temporary folder is writable");
                    return Folder(path);
                }
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What lies in it, in order.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("a folder");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    pub fn database(&self) -> PathBuf {
        self.0.join("metrics.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
