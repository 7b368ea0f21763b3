//! A link between processes that can be made slow, deaf, or treacherous: TCP proxies of our own.
//!
//! A link has a port for each server behind it. Clients that learn addresses from a server must learn the proxies': the brokers
//! of `tests/stack` have listeners that advertise them, and a driver of the store asks every node at the port that it was given,
//! so the proxies of the nodes share one.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{e2e::process::block_on, stack};

/// What a link does to what is sent over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Passes everything on.
    Clear,
    /// One byte a second.
    Trickle,
    /// Takes everything and passes nothing on, as when the other side has gone without a word. Those connections are dead.
    HalfOpen,
    /// Now and then resets the connection in the place of an answer, when the request has had its effect.
    Reset,
    /// A third of a second each way.
    Latency,
}

const LATENCY: Duration = Duration::from_millis(300);
/// Of so many answers one is a reset.
const RESETS: u32 = 12;
const CHUNK: usize = 1 << 14;

/// Proxies that have one mode.
pub struct Link {
    /// Where clients begin, `host:port[,…]`.
    pub address: String,
    mode: watch::Sender<Mode>,
    /// Ends everything when it is dropped.
    _tasks: JoinSet<()>,
}

impl Link {
    /// Proxies at these addresses, each for the server beside it.
    async fn at(places: Vec<(String, String)>) -> io::Result<Self> {
        let (mode, told) = watch::channel(Mode::Clear);
        let (mut tasks, mut addresses) = (JoinSet::new(), Vec::new());
        for (listen, server) in places {
            let taken = |error: io::Error| io::Error::new(error.kind(), format!("{listen}: {error}"));
            let listener = TcpListener::bind(&listen).await.map_err(taken)?;
            addresses.push(listener.local_addr().expect("it is bound").to_string());
            tasks.spawn(serve(listener, server, told.clone()));
        }
        Ok(Self { address: addresses.join(","), mode, _tasks: tasks })
    }

    /// To one server, given as `host:port`.
    pub fn to(server: &str) -> Self {
        block_on(Self::at(vec![("127.0.0.1:0".to_owned(), server.to_owned())])).expect("a port is free")
    }

    /// To the brokers, by their listeners with this number.
    pub fn to_kafka(number: usize) -> Self {
        let links = stack::kafka_links(number);
        let places = links.split(',').map(|link| link.split_once('=').expect("PROXY=BROKER"));
        let places = places.map(|(proxy, broker)| (proxy.to_owned(), broker.to_owned()));
        block_on(Self::at(places.collect())).expect("nobody else has the ports that the stack keeps for proxies")
    }

    /// To the store's nodes: at one port on the address of each.
    pub fn to_store() -> Self {
        let nodes: Vec<SocketAddr> = stack::scylla().split(',').map(|node| node.parse().expect("host:port")).collect();
        loop {
            let port = rand::random_range(12_000..15_000);
            let places: Vec<(String, String)> =
                nodes.iter().map(|node| (SocketAddr::new(node.ip(), port).to_string(), node.to_string())).collect();
            match block_on(Self::at(places)) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                made => return made.expect("the nodes' addresses are this machine's"),
            }
        }
    }

    /// From now on, also for what is connected.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn serve(listener: TcpListener, server: String, mode: watch::Receiver<Mode>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        let (server, mode) = (server.clone(), mode.clone());
        connections.spawn(async move {
            // A server that is down refuses: so does its proxy, by closing.
            if let Ok(far) = TcpStream::connect(&server).await {
                connect(near, far, mode).await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Carries both ways until one has ended, or the connection is reset.
async fn connect(near: TcpStream, far: TcpStream, mode: watch::Receiver<Mode>) {
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let (reset, deaf) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
    let way = |answers| Way { answers, mode: mode.clone(), reset: reset.clone(), deaf: deaf.clone() };
    tokio::join!(way(false).carry(near_in, far_out), way(true).carry(far_in, near_out));
}

/// One direction of a connection.
struct Way {
    /// From the server to its client.
    answers: bool,
    mode: watch::Receiver<Mode>,
    reset: CancellationToken,
    /// Whether something was swallowed: nothing that comes later can make up for it.
    deaf: Arc<AtomicBool>,
}

impl Way {
    async fn carry(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let (reset, mut buffer) = (self.reset.clone(), vec![0; CHUNK]);
        let carrying = async {
            loop {
                let read = tokio::select! {
                    read = from.read(&mut buffer) => read,
                    changed = self.mode.changed() => {
                        if changed.is_err() || (self.deaf.load(Ordering::Relaxed) && self.mode() != Mode::HalfOpen) {
                            self.reset.cancel();
                        }
                        continue;
                    }
                };
                match read {
                    Ok(0) | Err(_) => break,
                    Ok(bytes) => {
                        if self.pass(&buffer[..bytes], &mut to).await.is_err() {
                            break;
                        }
                    }
                }
            }
            let _ = to.shutdown().await;
        };
        let was_reset = tokio::select! {
            () = reset.cancelled() => true,
            () = carrying => false,
        };
        if was_reset {
            // So that closing is a reset, and not an end: which dropping the half would say first.
            let _ = (from.as_ref().set_zero_linger(), to.as_ref().set_zero_linger());
            to.forget();
        }
    }

    fn mode(&self) -> Mode {
        *self.mode.borrow()
    }

    async fn pass(&mut self, bytes: &[u8], to: &mut OwnedWriteHalf) -> std::io::Result<()> {
        match self.mode() {
            Mode::Clear => to.write_all(bytes).await,
            Mode::HalfOpen => {
                self.deaf.store(true, Ordering::Relaxed);
                Ok(())
            }
            Mode::Reset if self.answers && rand::random_ratio(1, RESETS) => {
                self.reset.cancel();
                std::future::pending().await
            }
            Mode::Reset => to.write_all(bytes).await,
            Mode::Latency => {
                tokio::time::sleep(LATENCY).await;
                to.write_all(bytes).await
            }
            Mode::Trickle => {
                let mut sent = 0;
                while self.mode() == Mode::Trickle && sent < bytes.len() {
                    to.write_all(&bytes[sent..=sent]).await?;
                    sent += 1;
                    let _ = tokio::time::timeout(Duration::from_secs(1), self.mode.changed()).await;
                }
                to.write_all(&bytes[sent..]).await
            }
        }
    }
}

mod tests {
    use std::time::Instant;

    use super::*;

    /// A server that says everything back, and a link to it.
    async fn echo() -> (Link, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        (Link::at(vec![("127.0.0.1:0".to_owned(), address)]).await.unwrap(), server)
    }

    async fn say(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
        stream.write_all(text).await?;
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).await.map(|_| back)
    }

    #[tokio::test]
    async fn a_clear_link_passes_everything_on_and_ends_when_an_end_does() {
        let (link, _server) = echo().await;
        let mut stream = TcpStream::connect(&link.address).await.unwrap();
        let text = vec![7; 1 << 20];
        let (mut from, mut to) = stream.split();
        let mut back = Vec::new();
        let (sent, read) = tokio::join!(
            async {
                to.write_all(&text).await?;
                to.shutdown().await
            },
            from.read_to_end(&mut back)
        );
        sent.unwrap();
        assert_eq!(read.unwrap(), text.len());
        assert_eq!(back, text);
    }

    #[tokio::test]
    async fn a_half_open_link_is_silent_and_its_connections_are_reset_when_it_is_mended() {
        let (link, _server) = echo().await;
        let mut stream = TcpStream::connect(&link.address).await.unwrap();
        assert_eq!(say(&mut stream, b"one").await.unwrap(), b"one");
        link.set(Mode::HalfOpen);
        let silent = tokio::time::timeout(Duration::from_millis(200), say(&mut stream, b"two")).await;
        assert!(silent.is_err(), "{silent:?}");
        link.set(Mode::Clear);
        let error = say(&mut stream, b"three").await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let mut stream = TcpStream::connect(&link.address).await.unwrap();
        assert_eq!(say(&mut stream, b"four").await.unwrap(), b"four");
    }

    #[tokio::test]
    async fn a_treacherous_link_resets_some_connections_in_the_place_of_an_answer() {
        let (link, _server) = echo().await;
        link.set(Mode::Reset);
        let (mut answered, mut reset) = (0, 0);
        for _ in 0..300 {
            let mut stream = TcpStream::connect(&link.address).await.unwrap();
            match say(&mut stream, b"hello").await {
                Ok(_) => answered += 1,
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
                    reset += 1;
                }
            }
        }
        assert!(answered > 150 && reset > 0, "{answered} answered, {reset} reset");
    }

    #[tokio::test]
    async fn a_trickle_is_a_byte_a_second_until_it_is_mended() {
        let (link, _server) = echo().await;
        let mut stream = TcpStream::connect(&link.address).await.unwrap();
        link.set(Mode::Trickle);
        let began = Instant::now();
        stream.write_all(b"abcdefghij").await.unwrap();
        let mut byte = [0; 2];
        stream.read_exact(&mut byte).await.unwrap();
        assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
        link.set(Mode::Clear);
        let mut rest = [0; 8];
        stream.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"cdefghij");
    }
}
