use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::frames::Frame;
use super::peer::{Message, Peer};
use super::{PATIENCE, until};

/// What the proxy takes for LM Studio. Connections wait until the test takes them up, or are answered by a script.
pub struct Upstream {
    address: SocketAddr,
    links: Receiver<Link>,
    accepted: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
}

impl Upstream {
    /// Each connection is taken up by [`Upstream::accept`].
    pub fn new() -> Upstream {
        let (sender, links) = channel();
        // After the test nobody takes them up any more.
        let taken_up = move |link| drop(sender.send(link));
        Upstream::start(any_port(), links, Arc::new(taken_up))
    }

    /// Each request is answered by `answer`, on a thread of its connection.
    pub fn answering(answer: impl Fn(&mut Link, Message) + Send + Sync + 'static) -> Upstream {
        Upstream::answering_on(any_port(), answer)
    }

    /// The same where another upstream has just listened.
    pub fn answering_again(
        address: SocketAddr,
        answer: impl Fn(&mut Link, Message) + Send + Sync + 'static,
    ) -> Upstream {
        Upstream::answering_on(until("the port to be free", || TcpListener::bind(address).ok()), answer)
    }

    fn answering_on(listener: TcpListener, answer: impl Fn(&mut Link, Message) + Send + Sync + 'static) -> Upstream {
        let (_, links) = channel();
        let answer = Arc::new(answer);
        let answered = move |mut link: Link| {
            let answer = answer.clone();
            thread::spawn(move || {
                while let Some(request) = link.next_request() {
                    answer(&mut link, request);
                }
            });
        };
        Upstream::start(listener, links, Arc::new(answered))
    }

    fn start(listener: TcpListener, links: Receiver<Link>, on_link: Arc<dyn Fn(Link) + Send + Sync>) -> Upstream {
        let address = listener.local_addr().expect("a bound socket");
        let (accepted, ends) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (accepted.clone(), ends.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                count.fetch_add(1, Ordering::SeqCst);
                on_link(Link(Peer::new(stream)));
            }
        });
        Upstream { address, links, accepted, ends }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next connection.
    pub fn accept(&self) -> Link {
        self.links.recv_timeout(PATIENCE).expect("the proxy connects")
    }

    /// The connection that the next request comes on: one of `links`, or a new one, which joins them. Behind a stream that
    /// is the proxy's choice.
    pub fn asked_on<'l>(&self, links: &'l mut Vec<Link>) -> &'l mut Link {
        let at = until("a request on some connection", || {
            links.extend(self.links.try_iter());
            links.iter().position(Link::has_byte)
        });
        &mut links[at]
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

fn any_port() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

/// One connection of the proxy to upstream.
pub struct Link(Peer);

impl Link {
    /// A second hand on the same connection, to send while this one reads.
    pub fn twin(&self) -> Link {
        Link(Peer::new(self.0.stream().try_clone().expect("a descriptor")))
    }

    /// The proxy's end of the connection.
    pub fn peer(&self) -> SocketAddr {
        self.0.stream().peer_addr().expect("an open connection")
    }

    /// The next request, whole.
    pub fn request(&mut self) -> Message {
        self.next_request().expect("a request")
    }

    fn has_byte(&self) -> bool {
        let stream = self.0.stream();
        stream.set_nonblocking(true).expect("an open connection");
        let byte = matches!(stream.peek(&mut [0]), Ok(1));
        stream.set_nonblocking(false).expect("an open connection");
        byte
    }

    fn next_request(&mut self) -> Option<Message> {
        self.0.message(false, false)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.send(bytes);
    }

    /// The next frame of a WebSocket.
    pub fn frame(&mut self) -> Frame {
        self.0.frame().expect("a whole frame")
    }

    /// The next message of text on a WebSocket, whatever its frames.
    pub fn text_message(&mut self) -> String {
        self.0.text_message().expect("a whole message")
    }

    /// So many bytes, whatever they are.
    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        self.0.exactly(count)
    }

    /// Waits for the connection's end; returns what came before.
    pub fn rest(&mut self) -> Vec<u8> {
        self.0.rest()
    }

    /// Waits for the connection's end; whether it is a reset. Nothing must have come before.
    pub fn is_reset(&mut self) -> bool {
        self.0.is_reset()
    }

    /// Sends what may come too late.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.stream().write_all(bytes.as_ref()).is_ok()
    }

    /// Sends again and again until every buffer up to the client is full; how many bytes of the last round were taken.
    pub fn send_until_full(&mut self, bytes: &str) -> usize {
        self.fill(bytes) % bytes.len()
    }

    /// The same; how many bytes were taken in all.
    pub fn fill(&mut self, bytes: impl AsRef<[u8]>) -> usize {
        self.0.fill(bytes.as_ref())
    }

    /// Waits until a request has begun to arrive, and takes nothing of it.
    pub fn wait_for_request(&self) {
        self.0.wait_for_byte();
    }

    /// Reads a request's head and waits for its body, which stays unread: whoever closes now resets.
    pub fn request_head_alone(&mut self) -> String {
        let head = self.0.head_alone();
        self.0.wait_for_byte();
        head
    }

    /// Closes with the body unread, which resets the connection (RFC 2525 §2.17).
    pub fn reset(self) {
        self.0.wait_for_byte();
    }

    /// Reads what is left unread, then closes in good order.
    pub fn finish(self) {
        self.send_and_finish("");
    }

    /// The same with last words.
    pub fn send_and_finish(mut self, words: &str) {
        self.send(words);
        self.fin();
        self.0.rest();
    }

    /// Ends the reply's direction in good order.
    pub fn fin(&mut self) {
        self.0.stream().shutdown(Shutdown::Write).expect("an open connection");
    }

    /// Waits until a further request begins to come, or the proxy has closed the connection.
    pub fn wait_for_more(&self) {
        let _ = self.0.stream().peek(&mut [0]);
    }

    /// Waits until the proxy has closed the connection, whatever came before.
    pub fn wait_for_end(&mut self) {
        self.0.rest();
    }

    /// Waits until the proxy has closed the connection; whether a request came before.
    pub fn is_asked_again(&mut self) -> bool {
        !self.0.rest().is_empty()
    }

    /// Waits until the proxy has closed the connection; nothing must have come before.
    pub fn wait_for_close(&mut self) {
        assert_eq!(self.0.rest(), b"", "a request came instead of the close");
    }
}
