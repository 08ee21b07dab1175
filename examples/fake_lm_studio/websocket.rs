//! LM Studio's own clients, on a WebSocket each: frames in and out, a thread for each channel.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::frames::{CLOSE, FIN, Frame, PING, PONG, accept};
use super::replies::Pace;
use super::sdk::{self, Answer, Channel, Namespace};

/// Speaks until the client leaves. `received` came behind the head of its request, `key` in it.
pub fn serve(stream: TcpStream, received: Vec<u8>, key: &str, namespace: Namespace, pace: Pace) -> io::Result<()> {
    let accept = accept(key);
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    (&stream).write_all(head.as_bytes())?;
    stream.set_read_timeout(None)?;
    let sender = Sender(Arc::new(Mutex::new(stream.try_clone()?)));
    let mut receiver = Receiving { stream, received, sender: sender.clone() };
    let Some(first) = receiver.message()? else { return Ok(()) };
    let (answer, is_welcome) = sdk::authenticate(&first);
    sender.text(answer)?;
    // Of each channel what cancels it; dropped, it tells the channel that nobody listens any more.
    let mut channels = HashMap::new();
    while is_welcome && let Some(message) = receiver.message()? {
        match sdk::answer(namespace, &message, pace) {
            Answer::Message(message) => sender.text(&message)?,
            Answer::Cancel { channel } => {
                // One that has just ended needs none.
                channels.remove(&channel).map(|(_, cancel): (JoinHandle<_>, mpsc::Sender<()>)| cancel.send(()));
            }
            Answer::Channel(channel) => {
                let (cancel, cancelled) = mpsc::channel();
                channels.retain(|_, (speaking, _)| !speaking.is_finished());
                let (id, sender) = (channel.id, sender.clone());
                let speaking = thread::spawn(move || speak(&channel, &sender, &cancelled, pace.pause));
                channels.insert(id, (speaking, cancel));
            }
            Answer::Nothing => {}
        }
    }
    sender.0.lock().expect("nobody panics with the stream").shutdown(Shutdown::Write)
}

/// Tells what belongs on a channel, until its client cancels it or leaves.
fn speak(channel: &Channel, sender: &Sender, cancelled: &Receiver<()>, pause: Duration) -> io::Result<()> {
    let (start, mut tokens, mut is_cancelled) = (Instant::now(), 0, false);
    for told in channel.messages() {
        if told.is_token {
            let due = start + pause.mul_f64((tokens + 1) as f64);
            match cancelled.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Err(RecvTimeoutError::Timeout) => tokens += 1,
                Ok(()) => {
                    is_cancelled = true;
                    break;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    println!("Client disconnected. Stopping channel {} after {tokens} tokens.", channel.id);
                    return Ok(());
                }
            }
        }
        sender.text(&channel.send(&told.message))?;
    }
    if let Some(last) = channel.last(tokens, is_cancelled) {
        sender.text(&channel.send(&last))?;
    }
    sender.text(&channel.close())
}

/// The writing half, which all channels share.
#[derive(Clone)]
struct Sender(Arc<Mutex<TcpStream>>);

impl Sender {
    fn text(&self, message: &str) -> io::Result<()> {
        self.send(&Frame::text(message))
    }

    fn send(&self, frame: &Frame) -> io::Result<()> {
        self.0.lock().expect("nobody panics with the stream").write_all(&frame.bytes())
    }
}

/// The reading half, which also answers pings.
struct Receiving {
    stream: TcpStream,
    /// Read, and not yet used.
    received: Vec<u8>,
    sender: Sender,
}

impl Receiving {
    /// The next message; `None` when the client leaves.
    fn message(&mut self) -> io::Result<Option<Value>> {
        let mut text = Vec::new();
        while let Some(frame) = self.frame()? {
            match frame.opcode() {
                CLOSE => {
                    self.sender.send(&Frame::new(FIN | CLOSE, frame.payload))?;
                    return Ok(None);
                }
                PING => self.sender.send(&Frame::new(FIN | PONG, frame.payload))?,
                PONG => {}
                _ => {
                    text.extend(&frame.payload);
                    if frame.is_final() {
                        let message: Value = serde_json::from_slice(&text)?;
                        println!("  {} {}", message["type"].as_str().unwrap_or("authentication"), message["endpoint"]);
                        return Ok(Some(message));
                    }
                }
            }
        }
        Ok(None)
    }

    fn frame(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some((frame, length)) = Frame::read(&self.received) {
                self.received.drain(..length);
                return Ok(Some(frame));
            }
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes)? {
                0 => return Ok(None),
                length => self.received.extend_from_slice(&bytes[..length]),
            }
        }
    }
}
