//! The upstream side of a tunnel on a real socket, in the clear or under TLS, which the loop polls.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use ureq::unversioned::transport::NextTimeout;

use super::UpstreamSide;
use crate::client::write_now;
use crate::exchange::incoming::Incoming;
use crate::exchange::relay::{Fault, Source};
use crate::exchange::wire::WireState;

/// Bytes that TLS seals at a time: a record holds no more (RFC 8446 §5.1).
const SEALED_BYTES_MAX: usize = 16 * 1024;

/// What upstream's 101 came on.
pub struct PolledUpstream {
    line: Incoming,
    wire: Arc<WireState>,
    socket: Arc<TcpStream>,
}

impl PolledUpstream {
    /// From now on nothing waits for it.
    pub fn new(line: Incoming, wire: Arc<WireState>) -> io::Result<PolledUpstream> {
        wire.set_polled(true)?;
        wire.divert_output();
        let socket = wire.descriptor().ok_or(io::ErrorKind::NotConnected)?;
        Ok(PolledUpstream { line, wire, socket })
    }

    /// What the socket takes at once.
    fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        write_now(bytes, |bytes| (&*self.socket).write(bytes))
    }

    fn seal(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let output = self.line.line().buffers().output();
        let n = bytes.len().min(output.len()).min(SEALED_BYTES_MAX);
        output[..n].copy_from_slice(&bytes[..n]);
        self.line.line().transmit_output(n, NextTimeout::default()).map_err(ureq::Error::into_io)?;
        Ok(n)
    }
}

impl UpstreamSide for PolledUpstream {
    fn read(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        match self.line.read(out) {
            Ok(ended) => Ok(ended),
            Err(Fault::Io(e)) => Err(e),
            Err(Fault::Chunks(_)) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.line.line().is_tls() {
            return self.write_now(bytes);
        }
        let mut sealed = 0;
        while sealed < bytes.len() && self.flush()? {
            sealed += self.seal(&bytes[sealed..])?;
        }
        self.flush()?;
        Ok(sealed)
    }

    fn flush(&mut self) -> io::Result<bool> {
        let mut unsent = self.wire.unsent();
        let Some(unsent) = &mut *unsent else { return Ok(true) };
        let n = self.write_now(unsent)?;
        if n == unsent.len() {
            *unsent = Vec::new();
        } else {
            unsent.drain(..n);
        }
        Ok(unsent.is_empty())
    }

    fn is_broken(&self) -> bool {
        self.socket.take_error().is_ok_and(|error| error.is_some())
    }

    fn ready(&mut self, hung_up: bool) {
        self.wire.ready(hung_up);
    }

    fn end(&mut self) {
        // An error means that it is closed, and reading says so, too. Under TLS there is no close_notify before it, for
        // which ureq has no word: OpenSSL takes it for a connection that was cut, and writes nothing more either.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    fn reset(&mut self) {
        let _ = SockRef::from(&*self.socket).set_linger(Some(Duration::ZERO));
    }

    fn descriptor(&self) -> Option<&Arc<TcpStream>> {
        Some(&self.socket)
    }
}
