//! A worker process: the production service over a world's log, store and hot view.

use std::{sync::Arc, time::Duration};

use tallymark::{
    retry, store,
    units::Span,
    worker::{
        self, Deps, Options, Service,
        board::{Board, LaneStatus},
    },
};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    gate::Gate,
    hot,
    log::{Broker, Opened},
    store::{Client, Servers},
};

/// What a process is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    pub options: Options,
    pub batch_rows: usize,
    pub in_flight: usize,
    pub publish_budget: usize,
}

pub struct Process {
    pub number: u64,
    pub gate: Gate,
    pub is_deaf: bool,
    board: Board,
    stop: CancellationToken,
    task: JoinHandle<Result<(), worker::Error>>,
}

impl Process {
    pub fn start(
        number: u64,
        settings: &Settings,
        broker: &Arc<Broker>,
        servers: &Arc<Servers>,
        view: &Arc<hot::Shared>,
    ) -> Self {
        let (gate, board) = (Gate::new(), Board::default());
        let deps = Deps {
            log: Arc::new(Opened::new(broker.clone(), gate.clone(), number)),
            store: Arc::new(Client::new(servers.clone(), gate.clone(), number)),
            hot: Arc::new(hot::Client::new(view.clone(), gate.clone())),
            board: board.clone(),
            store_options: store::Options {
                batch_rows: settings.batch_rows,
                in_flight: settings.in_flight,
                ..store::Options::default()
            },
            retry: retry::Options { initial: Span::from_millis(50), max: Span::from_secs(2) },
            publish_budget: settings.publish_budget,
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(Service::new(settings.options.clone(), deps).run(stop.clone()));
        Self { number, gate, is_deaf: false, board, stop, task }
    }

    pub fn lanes(&self) -> std::collections::BTreeMap<u32, LaneStatus> {
        self.board.lanes()
    }

    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// As kill −9 ends it.
    pub async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// As SIGTERM ends it. `Err`: it does not end, or ends badly.
    pub async fn leave(self) -> Result<(), String> {
        self.stop.cancel();
        match timeout(Duration::from_secs(600), self.task).await {
            Err(_) => Err("it does not stop".to_owned()),
            Ok(Err(error)) => Err(format!("it panicked: {error}")),
            Ok(Ok(Err(error))) => Err(error.to_string()),
            Ok(Ok(Ok(()))) => Ok(()),
        }
    }

    /// How it ended by itself, which it never should.
    pub async fn ended(self) -> String {
        match self.task.await {
            Err(error) => format!("it panicked: {error}"),
            Ok(Err(error)) => error.to_string(),
            Ok(Ok(())) => "it returned".to_owned(),
        }
    }
}
