//! Commands and flags: the only room that names clap.
//!
//! [`parse`] turns arguments and environment into an [`Invocation`]: a command, and the layers of its configuration.
//! [`Invocation::execute`] loads the configuration and does it. Flags that set the configuration are the same on every
//! command and are taken before and after the command's name; the inner one wins.
//!
//! Usage errors end with code 2, with clap's own explanation. Nothing here ends the process, and a reader of stdout that
//! goes away (`| head`) is no error.

use std::{
    ffi::OsString,
    future::Future,
    io::{self, Write as _},
    path::PathBuf,
};

use clap::{
    Args, CommandFactory as _, Parser, Subcommand, builder::PossibleValuesParser, builder::TypedValueParser as _,
};

use self::{dead_letters::DeadLettersCommand, topic::TopicCommand};
use crate::{
    config::{Config, Layers, Role},
    exit::{Exit, Failure},
};

mod audit;
mod completions;
mod config;
mod confirm;
mod dead_letters;
mod examples;
mod get;
mod lag;
mod lanes;
mod remote;
mod run;
mod schema;
mod send;
mod topic;
mod validate;

/// A write-behind event-ingestion pipeline: a 2xx means durable, totals are visible at once, nothing is lost and a
/// retry counts once.
#[derive(Debug, Parser)]
#[command(
    name = "tallymark",
    version,
    max_term_width = 100,
    after_help = examples::ROOT
)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the roles until SIGTERM or SIGINT, then drain
    #[command(after_help = examples::RUN)]
    Run(Configured<RunArgs>),
    /// Make the log's topic, or look whether it has the settings that it needs
    #[command(subcommand, after_help = examples::TOPIC)]
    Topic(topic::TopicCommand),
    /// Check the configuration and every dependency, and print every verdict
    #[command(after_help = examples::VALIDATE)]
    Validate(Configured<ValidateArgs>),
    /// Show the configuration in force
    #[command(subcommand, after_help = examples::CONFIG)]
    Config(ConfigCommand),
    /// The store's CQL: print it, or apply it
    #[command(subcommand, after_help = examples::SCHEMA)]
    Schema(schema::Schema),
    /// Post items, or an access log, to a running ingest
    ///
    /// Requests that fail are made again with the same ids until the ingest has answered for every item. Items without an id
    /// get one, made from the file's name, the line's number and its text, so that a file that is sent twice counts once
    /// (within the ingest's dedup window). Exit code 1: items were refused or lines not understood; 3: the ingest accepted
    /// nothing until the time to give up.
    Send(Configured<send::Send>),
    /// Ask for a counter
    ///
    /// Without `--by` the sum over all series that have the given tags; with it the largest groups, the sum of the others and
    /// the sum of all. With no instance running at the configured address, the data folder answers, if there is one. Exit
    /// code 1: the counter was never seen, or the question is refused; 3: nobody answers.
    Get(Configured<get::Get>),
    /// What is in the log and not in the store yet
    ///
    /// With no instance running at the configured address, the data folder answers, if there is one: its lanes are run by
    /// nobody. With `--check` the exit code is the verdict: 0 OK; 1 WARN, STALL, STOP or REWIND; 4 a lane has halted. 3: nobody
    /// answers.
    Lag(Configured<lag::Lag>),
    /// Recount the log, and compare store, checkpoints and hot view with it
    ///
    /// The log is read as far back as it reaches and counted with the lanes' own code; every row is compared at the seq that it
    /// names itself, so what only lags is not called wrong. Rows whose history the log does not hold any more are counted as
    /// unchecked. With `--repair` the rows that differ are set right by corrections in the log, which the lanes apply. On
    /// embedded backends the running instance does it, or, when none runs, the data folder is opened. Exit code 0: nothing
    /// differs; 1: something does; 3: a backend cannot be reached.
    Audit(Configured<audit::Audit>),
    /// The records that no lane could apply: list them, show them, replay them
    ///
    /// With an embedded log the running instance answers, or, with none running, the data folder; on Kafka the topic of dead
    /// letters and the store are asked themselves.
    #[command(subcommand, after_help = examples::DEAD_LETTERS)]
    DeadLetters(DeadLettersCommand),
    /// The lanes, and what to do about a halted one
    ///
    /// A lane halts when going on would lose or double something. It says what it found and which command remedies it; every
    /// remedy says first what it does and what is lost, asks, and leaves a record. With no instance running at the configured
    /// address, log and store themselves answer.
    Lanes(Box<lanes::Lanes>),
    /// Print a shell's completions
    #[command(after_help = examples::COMPLETIONS)]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print every setting and where its value came from; passwords are left out
    #[command(after_help = examples::CONFIG)]
    Show(Configured<ShowArgs>),
}

/// A command that reads the configuration.
#[derive(Debug, Args)]
struct Configured<A: Args> {
    #[command(flatten)]
    args: A,
    #[command(flatten)]
    settings: Settings,
}

fn role_parser() -> impl clap::builder::TypedValueParser<Value = Role> {
    PossibleValuesParser::new(Role::NAMES).try_map(|name| name.parse::<Role>())
}

#[derive(Debug, Args)]
struct RunArgs {
    /// What this process does
    #[arg(default_value = "all", value_parser = role_parser())]
    role: Role,
}

#[derive(Debug, Args)]
struct ValidateArgs {
    /// Check for this role
    #[arg(long, default_value = "all", value_parser = role_parser())]
    role: Role,
    /// Look at the configuration only, not at what it names
    #[arg(long)]
    no_connect: bool,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// With the defaults of this role
    #[arg(long, default_value = "all", value_parser = role_parser())]
    role: Role,
}

/// The flags that set the configuration.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Configuration")]
struct Settings {
    /// Read settings from this TOML file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The log: embedded:DIR or kafka://[user:password@]host:port[,…]/topic
    #[arg(long, value_name = "URL")]
    log: Option<String>,
    /// The store: embedded:DIR or scylla://[user:password@]host:port[,…]/keyspace
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// The hot view: memory:, redis://…, rediss://…, redis-cluster://… or none:
    #[arg(long, value_name = "URL")]
    hot: Option<String>,
    /// Where ingest and queries are served
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Where health, metrics, lag and the dashboard are served
    #[arg(long, value_name = "HOST:PORT")]
    admin_listen: Option<String>,
    /// How log lines are written: auto, text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Which log lines are written, e.g. debug or info,fjall=warn
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Any other setting; may be given many times
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl Settings {
    /// These before the command's name, `inner` after it.
    fn with(self, inner: Self) -> Self {
        Self {
            config: inner.config.or(self.config),
            log: inner.log.or(self.log),
            store: inner.store.or(self.store),
            hot: inner.hot.or(self.hot),
            listen: inner.listen.or(self.listen),
            admin_listen: inner.admin_listen.or(self.admin_listen),
            log_format: inner.log_format.or(self.log_format),
            log_level: inner.log_level.or(self.log_level),
            set: self.set.into_iter().chain(inner.set).collect(),
        }
    }

    fn layers(self, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Layers {
        let flags = [
            ("--log", "log.url", self.log),
            ("--store", "store.url", self.store),
            ("--hot", "hot.url", self.hot),
            ("--listen", "listen", self.listen),
            ("--admin-listen", "admin_listen", self.admin_listen),
            ("--log-format", "log_format", self.log_format),
            ("--log-level", "log_level", self.log_level),
        ];
        let mut layers = Layers::new().variables(variables);
        if let Some(path) = self.config {
            layers = layers.file(path);
        }
        for (name, key, text) in flags {
            if let Some(text) = text {
                layers = layers.flag(name, key, text);
            }
        }
        self.set.into_iter().fold(layers, Layers::set)
    }
}

/// A command to do.
enum Action {
    Run(RunArgs),
    Validate(ValidateArgs),
    Show(ShowArgs),
    SchemaPrint,
    SchemaApply(schema::Apply),
    Send(send::Send),
    Get(get::Get),
    Lag(lag::Lag),
    Audit(audit::Audit),
    Lanes(lanes::Asked),
    TopicCreate,
    TopicCheck(topic::CheckArgs),
    DeadLetters(DeadLetters),
    Completions(clap_complete::Shell),
}

/// What to do with dead letters.
enum DeadLetters {
    List(dead_letters::List),
    Show(dead_letters::Show),
    Replay(dead_letters::Replay),
}

/// A command and the layers of its configuration.
pub struct Invocation {
    action: Action,
    layers: Layers,
}

/// The arguments are no command: a usage error, or a request for help or the version.
pub struct Refused(clap::Error);

impl Refused {
    /// Prints the explanation, or what was asked for, and answers with the exit code.
    pub fn print(self) -> Exit {
        // Nobody can be told when the stream is closed.
        let _ = self.0.print();
        if self.0.use_stderr() { Exit::Usage } else { Exit::Done }
    }
}

/// Reads arguments (the first is the program's name) and environment.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Invocation, Refused> {
    let Cli { settings: outer, command } = Cli::try_parse_from(arguments).map_err(Refused)?;
    let (action, inner) = match command {
        None => (Action::Run(RunArgs { role: Role::All }), Settings::default()),
        Some(Command::Run(run)) => (Action::Run(run.args), run.settings),
        Some(Command::Validate(validate)) => (Action::Validate(validate.args), validate.settings),
        Some(Command::Config(ConfigCommand::Show(show))) => (Action::Show(show.args), show.settings),
        Some(Command::Schema(schema::Schema::Print(print))) => (Action::SchemaPrint, print.settings),
        Some(Command::Schema(schema::Schema::Apply(apply))) => (Action::SchemaApply(apply.args), apply.settings),
        Some(Command::Send(send)) => (Action::Send(send.args), send.settings),
        Some(Command::Get(get)) => (Action::Get(get.args), get.settings),
        Some(Command::Lag(lag)) => (Action::Lag(lag.args), lag.settings),
        Some(Command::Audit(audit)) => (Action::Audit(audit.args), audit.settings),
        Some(Command::Lanes(lanes)) => {
            let (asked, settings) = lanes.parts();
            (Action::Lanes(asked), settings)
        }
        Some(Command::Topic(TopicCommand::Create(create))) => (Action::TopicCreate, create.settings),
        Some(Command::Topic(TopicCommand::Check(check))) => (Action::TopicCheck(check.args), check.settings),
        Some(Command::DeadLetters(command)) => {
            let (letters, settings) = match command {
                DeadLettersCommand::List(list) => (DeadLetters::List(list.args), list.settings),
                DeadLettersCommand::Show(show) => (DeadLetters::Show(show.args), show.settings),
                DeadLettersCommand::Replay(replay) => (DeadLetters::Replay(replay.args), replay.settings),
            };
            (Action::DeadLetters(letters), settings)
        }
        Some(Command::Completions { shell }) => (Action::Completions(shell), Settings::default()),
    };
    Ok(Invocation { action, layers: outer.with(inner).layers(variables) })
}

impl Invocation {
    /// Does it.
    pub fn execute(self) -> Result<Exit, Failure> {
        let layers = self.layers;
        match self.action {
            Action::Run(args) => run::run(Config::load(layers, args.role)?),
            Action::Validate(args) => validate::validate(layers, args.role, args.no_connect),
            Action::Show(args) => config::show(layers, args.role, args.json),
            Action::SchemaPrint => schema::print(&Config::load(layers, Role::All)?),
            Action::SchemaApply(apply) => schema::apply(&Config::load(layers, Role::All)?, &apply),
            Action::Send(send) => remote::send(send, &Config::load(layers, Role::All)?),
            Action::Get(get) => remote::get(get, &Config::load(layers, Role::All)?),
            Action::Lag(lag) => remote::lag(lag, &Config::load(layers, Role::All)?),
            Action::Audit(args) => audit::audit(args, &Config::load(layers, Role::All)?),
            Action::Lanes(asked) => remote::lanes(asked, &Config::load(layers, Role::All)?),
            Action::TopicCreate => topic::create(&Config::load(layers, Role::All)?),
            Action::TopicCheck(args) => topic::check(&Config::load(layers, Role::All)?, &args),
            Action::DeadLetters(letters) => {
                let config = Config::load(layers, Role::All)?;
                let url = config.admin_listen.client_url();
                let command = match letters {
                    DeadLetters::List(list) => list.into_command(&url),
                    DeadLetters::Show(show) => show.into_command(&url),
                    DeadLetters::Replay(replay) => replay.into_command(&url),
                };
                remote::dead_letters(command, &config)
            }
            Action::Completions(shell) => completions::print(shell, Cli::command()),
        }
    }
}

/// Writes to stdout. A reader that has gone away has read what it wanted: that is no error.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Runs a short command's future to its end.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the runtime cannot be started: {error}")))?;
    Ok(runtime.block_on(future))
}
