//! A wire between a program and a server, that a test can cut, or make silent.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::stack;

/// A port of loopback that leads to a server. It is cut for good when it is dropped.
pub struct Wire {
    /// Where it begins, `host:port`.
    pub address: String,
    up: Arc<AtomicBool>,
    silent: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl Wire {
    /// To a node of the tests' store. A driver that knows a node by the wire's address keeps to that address, so this leads
    /// through the wire for as long as the store is of one node.
    pub async fn to_store() -> Self {
        let nodes = stack::scylla();
        assert!(!nodes.contains(','), "one node: a driver would go around the wire to the others ({nodes})");
        Self::to(nodes).await
    }

    async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (up, silent) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let mut tasks = JoinSet::new();
        let (accepts, stalls) = (up.clone(), silent.clone());
        tasks.spawn(async move {
            let mut wires = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                if accepts.load(Ordering::Relaxed) {
                    let far = TcpStream::connect(&server).await.unwrap();
                    let (accepts, stalls) = (accepts.clone(), stalls.clone());
                    wires.spawn(async move { copy(near, far, &accepts, &stalls).await });
                }
            }
        });
        Self { address, up, silent, _tasks: tasks }
    }

    /// Breaks every connection, and refuses new ones until it is mended.
    pub fn cut(&self) {
        self.up.store(false, Ordering::Relaxed);
    }

    pub fn mend(&self) {
        self.up.store(true, Ordering::Relaxed);
    }

    /// Takes what is sent, and keeps the answers until it speaks again: as a server that hangs. None is lost, as in TCP none is.
    pub fn hush(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    pub fn speak(&self) {
        self.silent.store(false, Ordering::Relaxed);
    }
}

/// Copies both ways until the wire is cut; a silent one keeps the answers.
async fn copy(near: TcpStream, far: TcpStream, up: &AtomicBool, silent: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    while up.load(Ordering::Relaxed) {
        let speaks = !silent.load(Ordering::Relaxed);
        let moved = tokio::select! {
            _ = near.readable() => pass(&near, &far, &mut buffer).await,
            _ = far.readable(), if speaks => pass(&far, &near, &mut buffer).await,
            // Looks whether it was cut, or made silent.
            () = tokio::time::sleep(std::time::Duration::from_millis(10)) => true,
        };
        if !moved {
            return;
        }
    }
}

async fn pass(from: &TcpStream, to: &TcpStream, buffer: &mut [u8]) -> bool {
    let read = match from.try_read(buffer) {
        Ok(0) => return false,
        Ok(read) => read,
        Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
    };
    let mut sent = 0;
    while sent < read {
        if to.writable().await.is_err() {
            return false;
        }
        match to.try_write(&buffer[sent..read]) {
            Ok(bytes) => sent += bytes,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
    }
    true
}
