//! The services of a process, from their start to the end of their drain.

use std::sync::Arc;

use axum::Router;
use futures_util::FutureExt as _;
use tokio::{net::TcpListener, runtime::Handle, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    backends::{self, Backends},
    runtime::Background,
};
use crate::{
    admin::{self, Lifecycle},
    audit,
    config::{Config, Role},
    dead_letter,
    exit::Failure,
    ingest, lag,
    progress::Progress,
    query, server,
    shutdown::{self, Deadline, Part},
    telemetry::Exporter,
    worker::{self, board::Board},
};

/// How much of the deadline has passed at most, in percent, when every accepted item is answered, …
const INTAKE: u32 = 50;
/// … when clients have got their answers, …
const CONNECTIONS: u32 = 60;
/// … and when the lanes have stored what they applied. The rest is for leaving the log's group.
const LANES: u32 = 88;

/// The listeners of a process, bound before anything runs.
pub struct Ports {
    public: Option<TcpListener>,
    admin: TcpListener,
}

impl Ports {
    /// Binds what the role serves.
    pub async fn bind(config: &Config, role: Role) -> Result<Self, Failure> {
        let bind = async |setting: &str, address: &str| server::bind(setting, address).await.map_err(Failure::failed);
        let public = match role.ingests() {
            true => Some(bind("listen", &config.listen.to_string()).await?),
            false => None,
        };
        Ok(Self { public, admin: bind("admin_listen", &config.admin_listen.to_string()).await? })
    }
}

/// A task that ends when it is dropped, and the token that asks it to end by itself.
struct Service {
    name: &'static str,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Service {
    /// Asks it to end, and waits.
    async fn end(self) {
        self.stop.cancel();
        // A task that panicked has said so on stderr, and its failure has been sent.
        let _ = self.task.await;
    }

    fn part(self) -> Part<'static> {
        (self.name, self.end().boxed())
    }
}

/// What the public port serves.
struct Public {
    service: ingest::Service,
    handle: ingest::Handle,
    router: Router,
}

fn public(config: &Config, backends: &Backends, lag: &lag::Handle) -> Result<Public, Failure> {
    let Backends { log, store, hot, shards, .. } = backends;
    let progress = Arc::new(Progress::new(store.clone(), &log.topology().topic));
    let deps = ingest::Deps {
        log: log.clone(),
        hot: hot.clone(),
        progress: progress.clone(),
        shards: *shards,
        hot_timeout: config.hot.options.timeout.0,
    };
    let (service, handle) =
        ingest::Service::new(config.ingest.clone(), deps).map_err(|error| Failure::usage(error.to_string()))?;
    let lag = lag.clone();
    let deps = query::Deps {
        store: store.clone(),
        hot: hot.clone(),
        log: log.clone(),
        progress,
        lag_ms: Arc::new(move || lag.lag_ms()),
    };
    let router = ingest::routes(handle.clone())
        .merge(query::routes(query::Handle::new(&config.query, &config.hot.options, deps)))
        .fallback(ingest::not_found)
        .method_not_allowed_fallback(ingest::method_not_allowed);
    Ok(Public { service, handle, router })
}

/// Everything that runs.
pub struct Running {
    health: admin::Health,
    failures: mpsc::Receiver<Failure>,
    report: mpsc::Sender<Failure>,
    /// Ended one stage after the other.
    intake: Vec<Service>,
    connections: Vec<Service>,
    lanes: Vec<Service>,
    watchers: Vec<Service>,
    /// Where the lanes run. Last: it ends what is still there.
    background: Option<Background>,
}

impl Running {
    /// Builds and starts the services of a role.
    pub fn start(
        config: &Config,
        role: Role,
        exporter: Exporter,
        backends: &Backends,
        ports: Ports,
    ) -> Result<Self, Failure> {
        let (report, failures) = mpsc::channel(8);
        let board = Board::default();
        let (lag_service, lag) = lag::Service::new(
            config.lag.clone(),
            lag::Deps { log: backends.log.clone(), store: backends.store.clone(), board: board.clone() },
        );
        let ingest_url = ports.public.as_ref().and_then(|public| public.local_addr().ok());
        let public = if role.ingests() { Some(public(config, backends, &lag)?) } else { None };
        let checks = backends::checks(config, role, backends, public.as_ref().map(|public| public.handle.clone()));
        let (health_service, health) = admin::health::Service::new(&config.admin, role.name(), checks);
        let mut running = Self {
            health,
            failures,
            report,
            intake: vec![],
            connections: vec![],
            lanes: vec![],
            watchers: vec![],
            background: None,
        };

        if role.works() {
            let deps = worker::Deps {
                log: backends.log.clone(),
                store: backends.store.clone(),
                hot: backends.hot.clone(),
                board,
                store_options: config.store.options.clone(),
                retry: config.retry.clone(),
                publish_budget: config.hot.options.publish_budget,
            };
            let service = worker::Service::new(config.worker.clone(), deps);
            let background = Background::start("tallymark-lanes")
                .map_err(|error| Failure::failed(format!("the lanes' runtime cannot be started: {error}")))?;
            let worker = running.service_on(background.handle(), "worker", async |stop| {
                service.run(stop).await.map_err(|error| error.to_string())
            });
            running.background = Some(background);
            running.lanes.push(worker);
        }
        if let Some((public, listener)) = public.zip(ports.public) {
            let service = public.service;
            let intake =
                running.service("ingest", async |stop| service.run(stop).await.map_err(|error| error.to_string()));
            running.intake.push(intake);
            let http = running.server("http", listener, public.router, config);
            running.connections.push(http);
        }
        let render: admin::Render = {
            let exporter = exporter.clone();
            Arc::new(move || exporter.render())
        };
        let info = admin::overview::Info {
            role: role.name().to_owned(),
            ingest_url: ingest_url.map(|address| format!("http://{address}")),
        };
        let (overview_service, overview) = admin::overview::Service::new(info, render.clone(), lag.clone());
        let streams = CancellationToken::new();
        let state = admin::State {
            lag,
            health: running.health.clone(),
            overview,
            metrics: render,
            shutdown: streams.clone(),
            max_streams: config.admin.max_streams,
        };
        let letters = dead_letter::Handle::new(backends.log.clone(), backends.store.clone());
        let Backends { log, store, hot, .. } = backends;
        let deps = audit::Deps { log: log.clone(), store: store.clone(), hot: hot.clone() };
        let more = admin::dead_letters::routes(letters).merge(admin::audit_route(deps, streams.clone()));
        running.watchers = vec![
            running.server("admin", ports.admin, admin::routes(state).merge(more), config),
            // Open streams would hold the admin port's drain up: they end with it.
            running.service("streams", async move |stop| {
                stop.cancelled().await;
                streams.cancel();
                Ok(())
            }),
            running.service("lag", |stop| lag_service.run(stop).map(Ok)),
            running.service("health", |stop| health_service.run(stop).map(Ok)),
            running.service("overview", |stop| overview_service.run(stop).map(Ok)),
            running.service("metrics", |stop| exporter.run(stop).map(Ok)),
        ];
        running.health.set(Lifecycle::Ready);
        tracing::info!(role = role.name(), "started");
        Ok(running)
    }

    /// Starts a service on the runtime that this is called in.
    fn service<F>(&self, name: &'static str, run: impl FnOnce(CancellationToken) -> F) -> Service
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.service_on(&Handle::current(), name, run)
    }

    fn service_on<F>(&self, runtime: &Handle, name: &'static str, run: impl FnOnce(CancellationToken) -> F) -> Service
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let (running, stopping, report) = (run(stop.clone()), stop.clone(), self.report.clone());
        // Two tasks, so that a panic in the service is reported too.
        let task = AbortOnDropHandle::new(runtime.spawn(running));
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let why = match task.await {
                Ok(Ok(())) if stopping.is_cancelled() => return,
                Ok(Ok(())) => "it ended by itself".to_owned(),
                Ok(Err(error)) => error,
                Err(error) => error.to_string(),
            };
            // When nobody listens the process is ending already, for an earlier failure.
            let _ = report.try_send(Failure::failed(format!("{name}: {why}")));
        }));
        Service { name, stop, task }
    }

    fn server(&self, name: &'static str, listener: TcpListener, router: Router, config: &Config) -> Service {
        match listener.local_addr() {
            Ok(address) => tracing::info!(what = name, address = %address, "listening"),
            Err(error) => tracing::warn!(what = name, error = %error, "listening on an unknown address"),
        }
        let options = config.http.clone();
        self.service(name, async move |stop| {
            server::serve(listener, router, &options, stop).await;
            Ok(())
        })
    }

    /// Waits for a service that fails: none should.
    pub async fn failed(&mut self) -> Failure {
        match self.failures.recv().await {
            Some(failure) => failure,
            None => std::future::pending().await,
        }
    }

    /// Ends everything, in the order of the data path: each stage within its share of the deadline, and the later ones also
    /// when an earlier one has not ended.
    ///
    /// # Errors
    /// What is left unfinished. Clients that do not end their requests are none of it: whatever was accepted from them has
    /// been answered before.
    pub async fn drain(self, deadline: Deadline) -> Result<(), Failure> {
        self.health.set(Lifecycle::Draining);
        let ended = |parts: Vec<Service>, percent| {
            shutdown::drain(deadline.percent(percent), parts.into_iter().map(Service::part).collect())
        };
        let intake = ended(self.intake, INTAKE).await;
        if ended(self.connections, CONNECTIONS).await.is_err() {
            tracing::warn!("clients have not ended their requests, their connections are closed");
        }
        let lanes = ended(self.lanes, LANES).await;
        let watchers = ended(self.watchers, 100).await;
        // Ends what a lane has left behind, whatever it waits for.
        drop(self.background);
        let mut unfinished = [intake, lanes, watchers].into_iter().filter_map(Result::err);
        if let Some(mut first) = unfinished.next() {
            first.parts.extend(unfinished.flat_map(|later| later.parts));
            return Err(first.into());
        }
        tracing::info!("drained");
        Ok(())
    }
}
