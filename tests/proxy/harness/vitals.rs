//! What a running proxy takes of the machine, as Linux tells it (proc(5)).

use std::fs;

use super::Proxy;

impl Proxy {
    /// Memory in use, in KB.
    pub fn resident_kb(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// Most memory that was ever in use, in KB.
    pub fn peak_kb(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id())).expect("a running process").count()
    }

    /// Most descriptors that it may have.
    pub fn descriptors_max(&self) -> usize {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.id())).expect("a running process");
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a limit of Linux");
        line.split_whitespace().next().and_then(|soft| soft.parse().ok()).expect("a number")
    }

    /// Processor time used so far, in ticks of 10 ms.
    pub fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("a running process");
        // Fields are counted behind the name in parentheses, which is field 2; 14 and 15 are user and system time.
        let (_, fields) = stat.rsplit_once(") ").expect("a name");
        let mut fields = fields.split(' ').skip(11).map(|field| field.parse::<u64>().expect("a number"));
        fields.next().expect("user time") + fields.next().expect("system time")
    }

    fn status(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a documented line");
        line.split_whitespace().next().expect("a number").parse().expect("a number")
    }
}
