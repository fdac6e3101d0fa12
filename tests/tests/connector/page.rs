//! The page, in a real browser.

use std::fs;

use anyhow::{Result, ensure};
use ce_tests::pattern::MIB;
use rustix::process::Signal;
use serde_json::Value;

use crate::browser::Browser;
use crate::site::Site;

#[test]
fn the_page_shows_agents_jobs_progress_and_logs_as_they_change() -> Result<()> {
    let mut site = Site::new()?;
    let disk = site.disk("disk.raw", 1500 * MIB)?;
    let daemon = site.agent("ce-1")?;
    let mut browser = Browser::start()?;
    let page = format!("http://{}/", site.admin);
    let token = fs::read_to_string(site.path("site/api-token"))?;

    browser.open(&page)?;
    log_in(&mut browser, "not the token")?;
    browser.until("document.body.innerText.includes('Unauthorized')")?;
    let refusals = browser.complaints().len();
    browser.open(&page)?;
    log_in(&mut browser, token.trim())?;
    browser.until("document.getElementById('link')?.textContent === 'live'")?;
    ensure!(
        browser.evaluate("document.cookie")? == "",
        "scripts see the login"
    );
    ensure!(cells(&mut browser, "agents")?.is_empty());

    let agent = daemon.start()?;
    browser.until(&shows("agents", "ce-1", "connected"))?;
    let job = site.submit(&site.export(&disk, "image"))?;
    browser.until(&shows("jobs", &job[..8], "inProgress"))?;
    browser.evaluate("document.querySelector('#jobs tr').click()")?;
    browser.until("!document.getElementById('detail').hidden")?;
    browser.until("document.getElementById('log').textContent.includes('job starts')")?;
    // Each change of a number in the page, without anyone loading it again.
    let mut percents = Vec::new();
    loop {
        let rows = cells(&mut browser, "jobs")?;
        let row = rows.first().cloned().unwrap_or_default();
        let percent = row.get(3).cloned().unwrap_or_default();
        if percents.last() != Some(&percent) {
            percents.push(percent);
        }
        if row.get(2).is_some_and(|status| status == "complete") {
            break;
        }
        ensure!(
            row.get(2).is_some_and(|status| status == "inProgress"),
            "{row:?}"
        );
    }
    ensure!(percents.len() > 2, "{percents:?}");
    ensure!(
        percents.last().is_some_and(|last| last == "100 %"),
        "{percents:?}"
    );
    browser.until("document.getElementById('log').textContent.includes('job is complete')")?;
    browser.until("document.getElementById('result').textContent.includes('md5Hash')")?;

    // What others have worded is text in the page, and nothing else.
    let mut odd = site.export(&disk, "<img src=x onerror=alert(1)>");
    odd["disk"] = serde_json::json!({"serial": "<script>alert(1)</script>"});
    let odd = site.submit(&odd)?;
    site.ended(&odd)?;
    browser.until(&shows("jobs", &odd[..8], "failed"))?;
    browser.evaluate("document.querySelector('#jobs tr').click()")?;
    browser.until("document.getElementById('result').textContent.includes('onerror')")?;
    let strange = browser.evaluate("document.querySelectorAll('img, td script').length")?;
    ensure!(strange == 0, "{strange}");

    agent.signal(Signal::KILL)?;
    agent.finish()?;
    browser.until(&shows("agents", "ce-1", "away"))?;
    let complaints = &browser.complaints()[refusals..];
    ensure!(complaints.is_empty(), "{complaints:?}");

    // Logins end with the Connector: the page says that it is cut off, and then asks again.
    site.kill()?;
    browser.until("document.getElementById('link').textContent === 'not connected'")?;
    site.serve()?;
    browser.until("document.querySelector('input[name=token]') !== null")?;
    Ok(())
}

fn log_in(browser: &mut Browser, token: &str) -> Result<()> {
    browser.until("document.querySelector('input[name=token]') !== null")?;
    let token = Value::from(token);
    browser.evaluate(&format!(
        "document.querySelector('input[name=token]').value = {token};\
         document.querySelector('button').click()"
    ))?;
    Ok(())
}

/// Whether a row of a table holds two texts.
fn shows(table: &str, one: &str, other: &str) -> String {
    format!(
        "[...document.querySelectorAll('#{table} tr')].some((row) => \
         row.textContent.includes('{one}') && row.textContent.includes('{other}'))"
    )
}

/// The texts of a table.
fn cells(browser: &mut Browser, table: &str) -> Result<Vec<Vec<String>>> {
    let cells = browser.evaluate(&format!(
        "[...document.querySelectorAll('#{table} tr')].map((row) => \
         [...row.cells].map((cell) => cell.textContent))"
    ))?;
    Ok(serde_json::from_value(cells)?)
}
