//! What the commands do.

use std::fs::DirBuilder;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cli::{Agent, Cli, Command, Folder, OneJob, Serve, Token};
use crate::client::Client;
use crate::home::Home;
use crate::ids::{AgentId, UnixMillis};
use crate::machine::Limits;
use crate::private_file;
use crate::server::{Options, Server};

/// Does what the command line says. Whether all is well: false if a job that was waited for is not
/// complete.
///
/// # Errors
///
/// What went wrong, for people.
pub async fn run(cli: Cli) -> Result<bool> {
    match cli.command {
        Command::Init { folder, names } => init(&folder, names)?,
        Command::Serve(options) => serve(options).await?,
        Command::Agent { home, command } => agent(&home, command)?,
        Command::Token {
            home,
            command: Token::New { agent, valid_for },
        } => new_token(&home, &agent, valid_for)?,
        Command::Submit {
            home,
            request,
            agent,
            wait,
        } => return submit(&home, &request, agent, wait).await,
        Command::List { home, json } => list(&client(&home)?, json).await?,
        Command::Show(OneJob { home, job }) => {
            print_json(&client(&home)?.get(&format!("/jobs/{job}")).await?)?;
        }
        Command::Cancel(OneJob { home, job }) => {
            let path = format!("/jobs/{job}/$cancel");
            let job = client(&home)?.post(&path, Vec::new()).await?;
            say(text(&job, "status"))?;
        }
        Command::Dismiss { home, agent } => {
            let path = format!("/agents/{agent}/$dismiss");
            client(&home)?.post(&path, Vec::new()).await?;
        }
        Command::Logs {
            job: OneJob { home, job },
            follow,
        } => logs(&client(&home)?, job.as_str(), follow).await?,
    }
    Ok(true)
}

fn init(folder: &Path, mut names: Vec<String>) -> Result<()> {
    if names.is_empty() {
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        names.push(host);
    }
    for own in ["localhost", "127.0.0.1", "::1"] {
        if !names.iter().any(|name| name == own) {
            names.push(own.to_owned());
        }
    }
    Home::new(folder).create(&names, UnixMillis::now())?;
    say(&format!(
        "made a Connector in {} for {}\nnext: ce-connector serve --dir {0}",
        folder.display(),
        names.join(", ")
    ))
}

async fn serve(options: Serve) -> Result<()> {
    raise_file_limit();
    let hours = u64::from(options.away_limit);
    let server = Server::start(
        Home::new(&options.home.folder),
        &Options {
            listen: options.listen,
            admin: options.admin,
            api: options.api,
            heartbeat: Duration::from_secs(options.heartbeat.into()),
            limits: Limits {
                away_ms: hours.saturating_mul(3_600_000),
                ..Limits::default()
            },
        },
    )
    .await?;
    say(&format!("agents connect to {}", server.agents))?;
    say(&format!("the page is at http://{}", server.admin))?;
    if let Some(api) = server.api {
        say(&format!("the orchestrator's calls are at https://{api}"))?;
    }
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let end = async {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    };
    Ok(server.run_until(end).await?)
}

/// Every agent is an open file. What the system allows at most is taken; if it says no, there is
/// room for as many agents as there was before.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files can't be raised");
    }
}

fn agent(home: &Folder, command: Agent) -> Result<()> {
    let home = Home::new(&home.folder);
    let registry = home.registry()?;
    match command {
        Agent::Add { name, out } => {
            let out = out.unwrap_or_else(|| PathBuf::from(format!("agent-{name}")));
            let authority = home.authority()?;
            let (issued, key) = authority.agent_with_key(&name, UnixMillis::now())?;
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&out)
                .with_context(|| out.display().to_string())?;
            private_file::write(&out.join("ca.pem"), authority.pem())?;
            private_file::write(&out.join("client.key"), &key)?;
            private_file::write(&out.join("client.pem"), &issued.pem)?;
            // Last: only what the agent can use is let in.
            registry.add(&name, &issued)?;
            say(&format!(
                "{name} may connect with client.pem and client.key in {}",
                out.display()
            ))
        }
        Agent::Remove { name } => {
            registry.remove(&name)?;
            say(&format!("{name} may not connect any more"))
        }
        Agent::List => {
            let now = UnixMillis::now();
            for (name, expires) in registry.agents()? {
                let days = expires.0.saturating_sub(now.0) / 86_400_000;
                say(&format!("{name}  certificate ends in {days} days"))?;
            }
            Ok(())
        }
    }
}

fn new_token(home: &Folder, agent: &AgentId, minutes: u32) -> Result<()> {
    let home = Home::new(&home.folder);
    let now = UnixMillis::now();
    let expires = now.plus(u64::from(minutes) * 60_000);
    let token = home.registry()?.new_token(agent, expires, now)?;
    // The only time that it is shown.
    say(&token)
}

async fn submit(home: &Folder, request: &Path, agent: Option<AgentId>, wait: bool) -> Result<bool> {
    let client = client(home)?;
    let body = std::fs::read(request).with_context(|| request.display().to_string())?;
    let path = match agent {
        Some(agent) => format!("/jobs?agent={agent}"),
        None => "/jobs".to_owned(),
    };
    let accepted = client.post(&path, body).await?;
    let id = text(&accepted, "id").to_owned();
    say(&id)?;
    if !wait {
        return Ok(true);
    }
    loop {
        let job = client.get(&format!("/jobs/{id}")).await?;
        if has_ended(&job) {
            print_json(&job)?;
            return Ok(text(&job, "status") == "complete");
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn list(client: &Client, json: bool) -> Result<()> {
    let page = client.get("/jobs").await?;
    if json {
        return print_json(&page);
    }
    let jobs = page.get("items").and_then(Value::as_array);
    say(&format!(
        "{:36}  {:16}  {:10}  {:>4}  {}",
        "job", "operation", "status", "%", "agent"
    ))?;
    for job in jobs.into_iter().flatten() {
        say(&format!(
            "{:36}  {:16}  {:10}  {:>4}  {}",
            text(job, "id"),
            text(job, "operation"),
            text(job, "status"),
            job.get("overallProgressPercent").unwrap_or(&Value::Null),
            text(job, "agent"),
        ))?;
    }
    Ok(())
}

async fn logs(client: &Client, job: &str, follow: bool) -> Result<()> {
    let mut from = 0;
    loop {
        // Before the lines: what comes after the end is in the lines that are read then.
        let ended = has_ended(&client.get(&format!("/jobs/{job}")).await?);
        let page = client.get(&format!("/jobs/{job}/logs?from={from}")).await?;
        let lines = page.get("lines").and_then(Value::as_array);
        for line in lines.into_iter().flatten() {
            say(&format!(
                "{}  {:5}  {}: {}",
                line.get("time").unwrap_or(&Value::Null),
                text(line, "level"),
                text(line, "target"),
                plain(text(line, "message")),
            ))?;
        }
        let next = page.get("next").and_then(Value::as_u64).unwrap_or(from);
        if next == from {
            if !follow || ended {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        from = next;
    }
}

fn client(home: &Folder) -> Result<Client> {
    Ok(Client::new(&Home::new(&home.folder))?)
}

fn has_ended(job: &Value) -> bool {
    matches!(text(job, "status"), "complete" | "failed" | "cancelled")
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// What an agent told, without what a terminal would take for a command.
fn plain(text: &str) -> String {
    let shown = |char: char| if char.is_control() { '\u{fffd}' } else { char };
    text.chars().map(shown).collect()
}

fn print_json(value: &Value) -> Result<()> {
    say(&serde_json::to_string_pretty(value)?)
}

/// Writes a line; an error if nobody reads it any more.
fn say(line: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{line}").context("standard output")
}

const POLL: Duration = Duration::from_secs(1);
