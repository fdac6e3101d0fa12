//! Who may not be here: both sides say why, and nothing comes of it.

use std::time::Duration;
use std::{fs, thread};

use anyhow::{Result, ensure};
use ce_connector::authority::Authority;
use ce_connector::home::Home;
use ce_connector::ids::{AgentId, UnixMillis};
use serde_json::json;

use crate::site::Site;

#[test]
fn whoever_may_not_be_here_is_told_so_and_the_connector_tells_it_too() -> Result<()> {
    let now = UnixMillis::now();
    let day = 86_400_000;
    let cases: [(Stranger, &str, &str); 5] = [
        (
            Stranger::ForeignConnector,
            "the Connector's certificate is not from the pinned CA",
            "not let in: no TLS: it does not take this Connector's certificate",
        ),
        (
            Stranger::SignedElsewhere,
            "it is not from its CA",
            "not let in: no TLS: its certificate is not from this Connector's CA",
        ),
        (
            Stranger::SignedAt(UnixMillis(now.0 - 1000 * day)),
            "finds this agent's certificate expired or not yet valid",
            "not let in: no TLS: invalid peer certificate: certificate expired",
        ),
        (
            Stranger::SignedAt(now.plus(2 * day)),
            "finds this agent's certificate expired or not yet valid",
            "not let in: no TLS: invalid peer certificate: certificate not valid yet",
        ),
        (
            Stranger::Removed,
            "does not admit this agent: this certificate is not, or no longer, registered here",
            "not let in: this certificate is not, or no longer, registered here",
        ),
    ];
    for (stranger, agent_says, connector_says) in cases {
        let site = Site::new()?;
        let invocation = site.agent("ce-1")?;
        stranger.arrange(&site)?;
        let job = site.submit(&json!({"operation": "diagnostics"}))?;
        let agent = invocation.start()?;
        site.until_logged(connector_says)?;
        // It comes again, and is no more welcome; but it does not hammer at the door.
        thread::sleep(Duration::from_secs(2));
        ensure!(site.connected()?.is_empty(), "{stranger:?} was let in");
        ensure!(site.show(&job)?["status"] == "pending", "{stranger:?}");
        let said = agent.stop()?;
        ensure!(said.contains(agent_says), "{stranger:?}: {said}");
        ensure!(said.contains("ConnectorRejected"), "{stranger:?}: {said}");
        let log = fs::read_to_string(site.path("connector.log"))?;
        let times = log.matches("not let in").count();
        ensure!((1..=10).contains(&times), "{times} times: {log}");
        ensure!(!log.contains("panicked"), "{log}");
    }
    Ok(())
}

/// What is wrong between an agent and its Connector.
#[derive(Debug)]
enum Stranger {
    /// The agent was given the CA of another Connector.
    ForeignConnector,
    /// The certificate was good, and taken back.
    Removed,
    /// The certificate is of the Connector's CA and was made then.
    SignedAt(UnixMillis),
    /// The certificate is of another CA, in the agent's name.
    SignedElsewhere,
}

impl Stranger {
    /// Arranges it for the agent `ce-1`, which is known to the site.
    fn arrange(&self, site: &Site) -> Result<()> {
        let agent: AgentId = "ce-1".parse()?;
        let other = site.path("other");
        fs::create_dir(&other)?;
        let other = Authority::create(&other, UnixMillis::now())?;
        let own = Authority::open(&site.path("site"))?;
        let (issued, key) = match self {
            Self::ForeignConnector => {
                // The site reads its own copy when it starts, and has done so.
                site.write("site/ca.pem", other.pem())?;
                return Ok(());
            }
            Self::Removed => {
                site.said(&["agent", "remove", "ce-1"])?;
                return Ok(());
            }
            Self::SignedAt(then) => own.agent_with_key(&agent, *then)?,
            Self::SignedElsewhere => other.agent_with_key(&agent, UnixMillis::now())?,
        };
        // That it is registered does not help it.
        Home::new(&site.path("site"))
            .registry()?
            .add(&agent, &issued)?;
        site.write("agent-ce-1/client.pem", &issued.pem)?;
        site.write("agent-ce-1/client.key", &key)?;
        Ok(())
    }
}
