//! The loop of process 1: everything that happens to the machine comes together here.

use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use rustix::system::{RebootCommand, reboot};
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::agent::{self, Lines};
use crate::clock::{self, ClockError};
use crate::command_line::Parameters;
use crate::console::Consoles;
use crate::filesystems;
use crate::modules::{self, ModuleError, Modules};
use crate::network::{self, Network, resolver};
use crate::notice::{Notice, Notices};
use crate::power_button;
use crate::status::Status;
use crate::supervisor::{Action, Ending, Event, Exit, Supervisor};
use crate::uevent::{Added, Uevents};
use crate::watchdog::Watchdog;

/// Brings the machine up and serves it until it is to be switched off, which is left to the caller.
pub fn run() -> Ending {
    if let Err(error) = filesystems::mount_all() {
        return Ending::Unusable(chain(&error));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(async {
            match Machine::begin() {
                Ok(machine) => machine.serve().await,
                Err(error) => Ending::Unusable(format!("the machine can't be brought up: {error}")),
            }
        }),
        Err(error) => Ending::Unusable(format!("no runtime: {error}")),
    }
}

/// What threads and tasks tell the loop.
#[derive(Debug)]
enum Message {
    /// A device has come.
    Added(Added),
    /// A line of the agent.
    AgentSaid(String),
    /// A clock was asked for.
    Clock(String, Result<f64, ClockError>),
    /// Messages about devices were lost.
    EventsLost,
    /// All modules that are wanted so far are in the kernel.
    ModulesLoaded,
    /// Someone has pressed the power button.
    PowerButton,
    /// A module is not.
    ModuleFailed(ModuleError),
}

/// What the thread of modules is told.
#[derive(Debug)]
enum Wanted {
    /// What is for this device.
    For(String),
    /// What is for all devices that are there.
    ForAll,
    /// This one.
    Named(&'static str, &'static str),
}

struct Machine {
    parameters: Parameters,
    consoles: Consoles,
    status: Status,
    supervisor: Supervisor,
    began: Instant,
    floor: SystemTime,
    agent: Option<Pid>,
    /// Whether the agent may be started: when the network is up, or does not come.
    is_open: bool,
    network: Network,
    interfaces: Vec<String>,
    /// Devices on which a power button may be.
    buttons: Vec<String>,
    watchdog: Option<Watchdog>,
    next_clock: Option<Instant>,
    wanted: mpsc::Sender<Wanted>,
    tell: UnboundedSender<Message>,
    told: Option<UnboundedReceiver<Message>>,
    net: UnboundedSender<network::Event>,
    net_events: Option<UnboundedReceiver<network::Event>>,
    netlink: rtnetlink::Handle,
}

impl Machine {
    fn begin() -> std::io::Result<Self> {
        let line = std::fs::read_to_string("/proc/cmdline")?;
        let parameters = Parameters::parse(&line);
        let now = Instant::now();
        let (tell, told) = unbounded_channel();
        let (net, net_events) = unbounded_channel();
        Ok(Self {
            consoles: Consoles::open(),
            status: Status::default(),
            supervisor: Supervisor::new(parameters.idle, now),
            parameters,
            began: now,
            floor: clock::floor(),
            agent: None,
            is_open: false,
            network: Network::default(),
            interfaces: Vec::new(),
            buttons: Vec::new(),
            watchdog: None,
            next_clock: None,
            wanted: start_modules(tell.clone())?,
            tell,
            told: Some(told),
            net,
            net_events: Some(net_events),
            netlink: network::connect()?,
        })
    }

    /// The loop.
    async fn serve(mut self) -> Ending {
        match self.turn().await {
            Ok(ending) => {
                self.end(&ending).await;
                ending
            }
            Err(error) => Ending::Unusable(format!("the machine can't be served: {error}")),
        }
    }

    async fn turn(&mut self) -> std::io::Result<Ending> {
        // Before anything is looked through: nothing that comes meanwhile is missed.
        follow(Uevents::listen()?, self.tell.clone())?;
        let notices = Notices::listen()?;
        let mut children = signal(SignalKind::child())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (Some(mut told), Some(mut net_events)) = (self.told.take(), self.net_events.take())
        else {
            return Ok(Ending::Unusable("the loop is turned once".into()));
        };
        // Three keys at once would start the machine anew, in the middle of whatever it does; now they are
        // a signal to this program.
        if let Err(error) = reboot(RebootCommand::CadOff) {
            self.say(&format!("Ctrl-Alt-Del: {error}"));
        }
        // Nor does anyone command the kernel by keys, or by a break on a serial line.
        if let Err(error) = std::fs::write("/proc/sys/kernel/sysrq", "0") {
            self.say(&format!("SysRq: {error}"));
        }
        self.greet();
        self.want(Wanted::ForAll);
        if let Err(error) = network::loopback(&self.netlink).await {
            self.say(&format!("lo: {error}"));
        }
        for interface in network::interfaces() {
            self.keep(interface);
        }
        for device in power_button::devices() {
            self.watch_button(device);
        }
        loop {
            let event = tokio::select! {
                said = notices.next() => {
                    for notice in said? {
                        self.noticed(&notice);
                        self.supervisor.on(Event::Noticed(notice), Instant::now());
                    }
                    None
                }
                Some(event) = net_events.recv() => {
                    self.on_network(event);
                    None
                }
                Some(message) = told.recv() => self.on_message(message),
                _ = children.recv() => self.reap(),
                _ = interrupt.recv() => Some(Event::Asked),
                _ = terminate.recv() => Some(Event::Asked),
                _ = ticks.tick() => {
                    self.on_tick();
                    self.is_open.then_some(Event::Tick)
                }
            };
            let mut event = event;
            while let Some(next) = event.take() {
                match self.supervisor.on(next, Instant::now()) {
                    None => {}
                    Some(Action::Start) => event = self.start_agent(),
                    Some(Action::Terminate) => {
                        self.say("the agent is asked to end");
                        self.signal_agent(Signal::TERM);
                    }
                    Some(Action::Kill) => {
                        self.fail("the agent gives no sign of life and is killed");
                        self.signal_agent(Signal::KILL);
                    }
                    Some(Action::PowerOff(ending)) => return Ok(ending),
                }
            }
        }
    }

    fn greet(&mut self) {
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        self.say(&format!(
            "Compositing Engine {}, Linux {release}",
            env!("CARGO_PKG_VERSION")
        ));
        for complaint in self.parameters.complaints.clone() {
            self.fail(&complaint);
        }
        match clock::lift(self.floor) {
            Ok(false) => {}
            Ok(true) => {
                self.status.clock = "was before the image was built; set to that day".into();
                self.say("clock: it stood before the day the image was built, and is set to it");
            }
            Err(error) => self.fail(&format!("clock: {error}")),
        }
    }

    /// The last words stay for a while, and results of the agent's last lines come in.
    async fn end(&mut self, ending: &Ending) {
        let text = format!("the machine is about to be switched off: {ending}");
        match ending.is_good() {
            true => self.say(&text),
            false => self.fail(&text),
        }
        let hold = match ending.is_good() {
            true => self.parameters.hold.min(GOOD_HOLD),
            false => self.parameters.hold,
        };
        self.draw();
        let until = Instant::now() + hold;
        while Instant::now() < until {
            self.feed();
            sleep(TICK.min(until.saturating_duration_since(Instant::now()))).await;
        }
    }

    fn added(&mut self, added: Added) {
        if let Some(modalias) = added.modalias {
            self.want(Wanted::For(modalias));
        }
        if let Some(interface) = added.interface {
            self.keep(interface);
        }
        if let Some(device) = added.input {
            self.watch_button(device);
        }
        if let Some(disk) = added.disk {
            self.say(&format!("disk {disk} is attached"));
        }
    }

    fn look_again(&mut self) {
        self.want(Wanted::ForAll);
        for interface in network::interfaces() {
            self.keep(interface);
        }
    }

    fn want(&mut self, wanted: Wanted) {
        if self.wanted.send(wanted).is_err() {
            self.fail("modules: the thread that loads them has ended");
        }
    }

    fn keep(&mut self, interface: String) {
        if interface != "lo" && !self.interfaces.contains(&interface) {
            self.interfaces.push(interface.clone());
            tokio::spawn(network::keep(
                interface,
                self.netlink.clone(),
                self.net.clone(),
            ));
        }
    }

    fn on_network(&mut self, event: network::Event) {
        let interface = event.interface.clone();
        let before = (self.network.is_up(), self.network.time_servers());
        let how = self.network.take(event);
        let now = (self.network.is_up(), self.network.time_servers());
        self.is_open |= now.0;
        if now.0 && now != before {
            self.ask_for_time();
        }
        if let Err(error) = resolver::write(Path::new("/etc/resolv.conf"), self.network.given()) {
            self.fail(&format!("resolv.conf: {error}"));
        }
        let text = format!("network {interface}: {how}");
        if self.status.network.insert(interface, how.clone()) != Some(how) {
            self.say(&text);
        }
    }

    /// Asks the servers in turn until one answers, on a thread of its own.
    fn ask_for_time(&mut self) {
        let mut servers = self.network.time_servers();
        servers.extend(&self.parameters.time_servers);
        self.next_clock = Some(Instant::now() + clock::INTERVAL);
        let (floor, tell) = (self.floor, self.tell.clone());
        tokio::task::spawn_blocking(move || {
            for server in servers {
                let answer = clock::synchronize(server, floor);
                let is_good = answer.is_ok();
                // Nobody listens when the machine is about to be switched off.
                let _ = tell.send(Message::Clock(server.to_string(), answer));
                if is_good {
                    break;
                }
            }
        });
    }

    fn on_message(&mut self, message: Message) -> Option<Event> {
        match message {
            Message::PowerButton => {
                self.say("the power button was pressed");
                return Some(Event::Asked);
            }
            Message::Added(added) => self.added(added),
            Message::EventsLost => self.look_again(),
            Message::AgentSaid(line) => {
                if agent::is_error(&line) {
                    self.status.last_error = Some(agent::message(&line).to_owned());
                }
                self.status.add_line(agent::message(&line));
                self.consoles.say(&line);
            }
            Message::Clock(server, Ok(offset)) => {
                self.status.clock = format!("right by {server}");
                self.say(&format!(
                    "clock: right by {server}, it was off by {offset:.1} s"
                ));
            }
            Message::Clock(server, Err(error)) => {
                self.say(&format!("clock: {server}: {error}"));
            }
            Message::ModulesLoaded => self.find_watchdog(),
            Message::ModuleFailed(error) => self.fail(&error.to_string()),
        }
        None
    }

    /// Waits for the power button of a device, on a thread of its own.
    fn watch_button(&mut self, device: String) {
        if self.buttons.contains(&device) || self.buttons.len() >= MOST_BUTTONS {
            return;
        }
        self.buttons.push(device.clone());
        let tell = self.tell.clone();
        let watch = move || {
            // One that is no button, or goes away, is not pressed.
            while power_button::wait(&device).is_ok() {
                if tell.send(Message::PowerButton).is_err() {
                    return;
                }
            }
        };
        let started = thread::Builder::new().name("ce-button".into()).spawn(watch);
        if let Err(error) = started {
            self.fail(&format!("power button: {error}"));
        }
    }

    fn find_watchdog(&mut self) {
        if self.watchdog.is_some() {
            return;
        }
        if !Watchdog::is_there() {
            // Its time is longer than any stall of a busy host.
            self.want(Wanted::Named("softdog", "soft_margin=300"));
            return;
        }
        match Watchdog::start() {
            Ok(Some(watchdog)) => {
                self.say(&format!("watchdog: {}", watchdog.name));
                self.watchdog = Some(watchdog);
            }
            Ok(None) => {}
            Err(error) => self.fail(&format!("watchdog: {error}")),
        }
    }

    fn noticed(&mut self, notice: &Notice) {
        match notice {
            Notice::Alive => {}
            Notice::Job(job) => self.status.job.clone_from(job),
            Notice::Ready => self.status.agent = "running".into(),
            Notice::Status(text) => self.status.session.clone_from(text),
        }
    }

    fn start_agent(&mut self) -> Option<Event> {
        self.say("the agent is started");
        self.status.agent = "starting".into();
        match agent::start() {
            Ok((pid, output)) => {
                self.agent = Some(pid);
                tokio::spawn(read_lines(output, self.tell.clone()));
                None
            }
            Err(error) => Some(self.agent_ended(Exit::NotStarted(error.to_string()))),
        }
    }

    fn agent_ended(&mut self, exit: Exit) -> Event {
        self.agent = None;
        self.status.job = None;
        self.status.session.clear();
        self.status.agent = exit.to_string();
        match exit {
            Exit::Code(0) => self.say("the agent has ended"),
            _ => self.fail(&format!("the agent: {exit}")),
        }
        Event::Exited(exit)
    }

    /// Takes the results of all processes that have ended: orphans become children of process 1.
    fn reap(&mut self) -> Option<Event> {
        let mut event = None;
        while let Some((pid, exit)) = agent::ended() {
            if self.agent == Some(pid) {
                event = Some(self.agent_ended(exit));
            }
        }
        event
    }

    fn signal_agent(&mut self, signal: Signal) {
        if let Some(pid) = self.agent
            && let Err(error) = kill_process(pid, signal)
        {
            self.say(&format!("the agent can't be signalled: {error}"));
        }
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        if !self.is_open && now.duration_since(self.began) >= NETWORK_PATIENCE {
            self.is_open = true;
            self.fail("network: no interface has an address; the agent is started without one");
        }
        if self.next_clock.is_some_and(|due| due <= now) {
            self.ask_for_time();
        }
        self.feed();
        self.draw();
    }

    fn feed(&mut self) {
        if let Some(watchdog) = &mut self.watchdog
            && let Err(error) = watchdog.feed()
        {
            self.watchdog = None;
            self.fail(&format!("watchdog: {error}"));
        }
    }

    fn draw(&mut self) {
        let now = Instant::now();
        let idle_left = self.supervisor.idle_left(now);
        let screen = self
            .status
            .screen(now.duration_since(self.began), idle_left);
        self.consoles.draw(&screen);
    }

    fn say(&mut self, line: &str) {
        self.status.add_line(line);
        self.consoles.say(&format!("ce-init: {line}"));
    }

    /// Says a line that an operator should not miss.
    fn fail(&mut self, line: &str) {
        self.status.last_error = Some(line.to_owned());
        self.say(line);
    }
}

/// Starts the thread that loads modules: the kernel looks for devices while it takes one.
fn start_modules(tell: UnboundedSender<Message>) -> std::io::Result<mpsc::Sender<Wanted>> {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let (sender, receiver) = mpsc::channel();
    let serve = move || {
        let mut modules = match Modules::read(&modules::folder_of(&release)) {
            Ok(modules) => modules,
            Err(error) => {
                let _ = tell.send(Message::ModuleFailed(error));
                return;
            }
        };
        while let Ok(wanted) = receiver.recv() {
            let is_all = matches!(wanted, Wanted::ForAll | Wanted::Named(..));
            let failed = match wanted {
                Wanted::For(modalias) => modules.load_for(&modalias),
                Wanted::ForAll => modules::asked_for(Path::new("/sys/devices"))
                    .iter()
                    .flat_map(|modalias| modules.load_for(modalias))
                    .collect(),
                Wanted::Named(name, options) => {
                    modules.load(name, options).err().into_iter().collect()
                }
            };
            // Nobody listens when the machine is about to be switched off.
            for error in failed {
                let _ = tell.send(Message::ModuleFailed(error));
            }
            if is_all {
                let _ = tell.send(Message::ModulesLoaded);
            }
        }
    };
    thread::Builder::new()
        .name("ce-modules".into())
        .spawn(serve)?;
    Ok(sender)
}

/// Starts the thread that waits for devices.
fn follow(uevents: Uevents, tell: UnboundedSender<Message>) -> std::io::Result<()> {
    let serve = move || {
        loop {
            let message = match uevents.next() {
                Ok(added) => Message::Added(added),
                Err(_) => Message::EventsLost,
            };
            if tell.send(message).is_err() {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("ce-uevents".into())
        .spawn(serve)?;
    Ok(())
}

/// Hands on the lines of the agent until it says no more.
async fn read_lines(output: pipe::Receiver, tell: UnboundedSender<Message>) {
    let mut lines = Lines::default();
    let mut buffer = [0; 4096];
    loop {
        if output.readable().await.is_err() {
            return;
        }
        let whole = match output.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => lines.add(buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => break,
        };
        for line in whole {
            let _ = tell.send(Message::AgentSaid(line));
        }
    }
    if let Some(line) = lines.rest() {
        let _ = tell.send(Message::AgentSaid(line));
    }
}

/// An error and what it comes from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        text.push_str(&format!(": {next}"));
        source = next.source();
    }
    text
}

/// Keyboards and buttons of one machine.
const MOST_BUTTONS: usize = 16;

const TICK: Duration = Duration::from_secs(1);

/// When the agent is started although there is no network: its log says what it makes of it.
const NETWORK_PATIENCE: Duration = Duration::from_secs(30);

/// How long the last words stay if all went well.
const GOOD_HOLD: Duration = Duration::from_secs(2);
