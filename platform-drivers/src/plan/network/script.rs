//! The part of the first-boot script that moves addresses and takes out ghosts.
//!
//! ```text
//!  wait: old adapters that are not there (their drivers do not run them), new ones by order
//!    |   until there are enough new ones, five minutes at most
//!    v
//!  ghosts go --> what each old one had is set on the new one in its place
//! ```
//!
//! What is there is read from keys that plug and play makes at every boot, not from what programs
//! print: that is in the language of Windows. Only the name of a connection, which `netsh` wants,
//! passes through a program. Ghosts are taken out before their addresses are set again, as Windows may
//! call those taken otherwise; but only when no adapter is waited for any more: the numbers of ghosts
//! are free again then, and what comes later would come before others.

use std::fmt::{Display, Write};

use uuid::Uuid;

use super::adapter::{Adapter, Presence, Settings};
use super::{CLASS, braced};

/// What runs [`routine`].
pub(super) const CALL: &str = "call :network";

/// The routine: `known` are adapters that the image has, `buses` those that new ones hang on. With
/// `keeps` addresses are carried, else only ghosts go.
pub(super) fn routine(
    adapters: &[Adapter],
    known: &[Uuid],
    buses: &[String],
    keeps: bool,
) -> String {
    // One that is disabled does not run, and may be there all the same.
    let adapters: Vec<&Adapter> = adapters
        .iter()
        .filter(|adapter| adapter.presence != Presence::Disabled)
        .collect();
    let mut text = String::new();
    let mut line = |line: &dyn Display| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{line}");
    };
    line(&":network");
    line(&format!(r#"set "NETCLASS={CONTROL}\Class\{CLASS}""#));
    line(&format!(r#"set "NETWORK={CONTROL}\Network\{CLASS}""#));
    for guid in known {
        line(&format!(r#"set "KNOWN_{}=1""#, braced(guid)));
    }
    line(&WAIT_HEAD);
    for number in 1..=adapters.len() {
        line(&format!("call :old{number}"));
    }
    line(&WAIT_TAIL);
    for number in 1..=adapters.len() {
        line(&format!("call :ghost{number}"));
    }
    line(&":network-carry");
    for number in 1..=adapters.len() {
        line(&format!("call :carry{number}"));
    }
    line(&"exit /b %BAD%");
    line(&LOOK);
    for bus in buses {
        let start = format!("{bus}\\");
        let length = start.len();
        line(&format!(
            r#"if /i "%DEVICE:~0,{length}%"=="{start}" goto look-bus"#
        ));
    }
    line(&LOOK_BUS);
    for (number, adapter) in (1..).zip(adapters) {
        let has_place = adapter.presence == Presence::There;
        let is_carried = keeps && has_place && !adapter.settings.is_empty();
        for routine in [
            old(number, adapter, has_place, is_carried),
            ghost(number, adapter),
            carry(number, is_carried.then_some(&adapter.settings)),
        ] {
            line(&routine.trim_end());
        }
    }
    text
}

/// Looks whether an old adapter is there; if it is not, it is missing, and one that was there when
/// Windows ran last wants a new one.
fn old(number: usize, adapter: &Adapter, has_place: bool, is_carried: bool) -> String {
    let mut text = format!(":old{number}\nset \"MISSING{number}=1\"\nset \"PLACE{number}=\"\n");
    if let Some(service) = &adapter.service {
        let _ = writeln!(
            text,
            "for /f \"tokens=2,*\" %%a in ('{REG} query \"{SERVICES}\\{service}\\Enum\" 2^>nul') \
             do if /i \"%%b\"==\"{}\" set \"MISSING{number}=\"\n\
             if not defined MISSING{number} exit /b 0",
            adapter.instance
        );
    }
    if has_place {
        let _ = writeln!(text, "set /a PLACES+=1\nset \"PLACE{number}=%PLACES%\"");
    }
    if is_carried {
        text.push_str("set \"WANTED=%PLACES%\"\n");
    }
    text.push_str("exit /b 0\n");
    text
}

/// Takes out what is left of an old adapter: as plug and play does it, or on a Windows before 2004,
/// whose pnputil cannot, its keys.
fn ghost(number: usize, adapter: &Adapter) -> String {
    let (guid, instance) = (braced(&adapter.guid), &adapter.instance);
    let key = &adapter.number;
    format!(
        ":ghost{number}\n\
         if not defined MISSING{number} exit /b 0\n\
         {REG} query \"{ENUM}\\{instance}\" >nul 2>&1\n\
         {FAILED} exit /b 0\n\
         {PNPUTIL} /remove-device \"{instance}\"\n\
         if \"%ERRORLEVEL%\"==\"0\" exit /b 0\n\
         {REG} delete \"{ENUM}\\{instance}\" /f\n\
         {FAILED} exit /b 0\n\
         set \"GUID=\"\n\
         for /f \"tokens=2,*\" %%a in ('{REG} query \"%NETCLASS%\\{key}\" /v NetCfgInstanceId 2^>nul') \
         do if \"%%a\"==\"REG_SZ\" set \"GUID=%%b\"\n\
         if /i \"%GUID%\"==\"{guid}\" {REG} delete \"%NETCLASS%\\{key}\" /f\n\
         {REG} delete \"%NETWORK%\\{guid}\" /f\n\
         {REG} delete \"{INTERFACES}\\{guid}\" /f\n\
         exit /b 0\n"
    )
}

fn carry(number: usize, settings: Option<&Settings>) -> String {
    let mut text = format!(":carry{number}\n");
    let Some(settings) = settings else {
        text.push_str("exit /b 0\n");
        return text;
    };
    let _ = write!(
        text,
        "if not defined PLACE{number} exit /b 0\n\
         call set \"NAME=%%NEW%PLACE{number}%%%\"\n\
         call set \"GUID=%%GUID%PLACE{number}%%%\"\n\
         if not defined NAME exit /b 0\n\
         echo {}\n",
        settings.to_string().replace(',', ";")
    );
    let mut netsh = |command: String| {
        let _ = writeln!(text, "{NETSH} interface {command}\n{FAILED} set BAD=1");
    };
    let mut gateways = settings.gateways.iter();
    let first = gateways.next();
    for (index, (address, mask)) in settings.addresses.iter().enumerate() {
        if index == 0 {
            let gateway = first.map_or("gateway=none".to_owned(), gateway_words);
            netsh(format!(
                "ipv4 set address name=\"%NAME%\" source=static address={address} mask={mask} {gateway}"
            ));
        } else {
            netsh(format!(
                "ipv4 add address name=\"%NAME%\" address={address} mask={mask}"
            ));
        }
    }
    if !settings.addresses.is_empty() {
        for gateway in gateways {
            netsh(format!(
                "ipv4 add address name=\"%NAME%\" {}",
                gateway_words(gateway)
            ));
        }
    }
    let v4: Vec<_> = settings
        .name_servers
        .iter()
        .map(ToString::to_string)
        .collect();
    let v6 = settings.name_servers_v6.iter();
    let v6: Vec<_> = v6.map(ToString::to_string).collect();
    for (version, servers) in [("ipv4", v4), ("ipv6", v6)] {
        for (index, server) in (1..).zip(servers) {
            netsh(match index {
                1 => format!(
                    "{version} set dnsservers name=\"%NAME%\" source=static address={server} validate=no"
                ),
                _ => format!(
                    "{version} add dnsservers name=\"%NAME%\" address={server} index={index} validate=no"
                ),
            });
        }
    }
    for (index, server) in (1..).zip(&settings.wins_servers) {
        netsh(match index {
            1 => format!("ipv4 set winsservers name=\"%NAME%\" source=static address={server}"),
            _ => format!("ipv4 add winsservers name=\"%NAME%\" address={server} index={index}"),
        });
    }
    if let Some(metric) = settings.metric {
        netsh(format!(
            "ipv4 set interface interface=\"%NAME%\" metric={metric}"
        ));
    }
    let mut reg = |key: String, value: &str, kind: &str, data: &dyn Display| {
        let _ = writeln!(
            text,
            "{REG} add \"{key}\" /v {value} /t {kind} /d {data} /f\n{FAILED} set BAD=1"
        );
    };
    if let Some(suffix) = &settings.suffix {
        reg(format!(r"{INTERFACES}\%GUID%"), "Domain", "REG_SZ", suffix);
    }
    if let Some(kind) = settings.netbios {
        let key = format!(r"{SERVICES}\NetBT\Parameters\Interfaces\Tcpip_%GUID%");
        reg(key, "NetbiosOptions", "REG_DWORD", &kind);
    }
    text.push_str("exit /b 0\n");
    text
}

fn gateway_words((gateway, metric): &(std::net::Ipv4Addr, Option<u16>)) -> String {
    match metric {
        Some(metric) => format!("gateway={gateway} gwmetric={metric}"),
        None => format!("gateway={gateway}"),
    }
}

const CONTROL: &str = r"HKLM\SYSTEM\CurrentControlSet\Control";
const ENUM: &str = r"HKLM\SYSTEM\CurrentControlSet\Enum";
const SERVICES: &str = r"HKLM\SYSTEM\CurrentControlSet\Services";
const INTERFACES: &str = r"HKLM\SYSTEM\CurrentControlSet\Services\Tcpip\Parameters\Interfaces";
const NETSH: &str = r"%SystemRoot%\System32\netsh.exe";
const PNPUTIL: &str = r"%SystemRoot%\System32\pnputil.exe";
const REG: &str = r"%SystemRoot%\System32\reg.exe";

/// What follows is done when the command before failed, by whatever code: some are negative.
const FAILED: &str = r#"if not "%ERRORLEVEL%"=="0""#;

/// `ping` waits: `timeout` does not without a keyboard.
const WAIT_HEAD: &str = r"set BAD=0
set WAITED=0
:network-wait
set NEW=0
set PLACES=0
set WANTED=0";

const WAIT_TAIL: &str = r#"for /f "delims=" %%k in ('%SystemRoot%\System32\reg.exe query "%NETCLASS%" 2^>nul') do call :look "%%k"
if %NEW% GEQ %WANTED% goto network-found
set /a WAITED+=1
if %WAITED% GEQ 60 goto network-late
%SystemRoot%\System32\ping.exe -n 6 127.0.0.1 >nul
goto network-wait
:network-late
echo only %NEW% of %WANTED% new adapters are there
set BAD=1
goto network-carry
:network-found"#;

/// Looks at one key of the class. A new adapter is one that the image does not know, and that the
/// network stack answers for.
const LOOK: &str = r#":look
set "GUID="
set "DEVICE="
set "NAME="
for /f "tokens=2,*" %%a in ('%SystemRoot%\System32\reg.exe query %1 /v NetCfgInstanceId 2^>nul') do if "%%a"=="REG_SZ" set "GUID=%%b"
if not defined GUID exit /b 0
if defined KNOWN_%GUID% exit /b 0
for /f "tokens=2,*" %%a in ('%SystemRoot%\System32\reg.exe query "%NETWORK%\%GUID%\Connection" /v PnPInstanceId 2^>nul') do if "%%a"=="REG_SZ" set "DEVICE=%%b"
for /f "tokens=2,*" %%a in ('%SystemRoot%\System32\reg.exe query "%NETWORK%\%GUID%\Connection" /v Name 2^>nul') do if "%%a"=="REG_SZ" set "NAME=%%b"
if not defined DEVICE exit /b 0
if not defined NAME exit /b 0"#;

const LOOK_BUS: &str = r#"exit /b 0
:look-bus
%SystemRoot%\System32\netsh.exe interface ipv4 show addresses name="%NAME%" >nul 2>&1
if not "%ERRORLEVEL%"=="0" exit /b 0
set /a NEW+=1
set "NEW%NEW%=%NAME%"
set "GUID%NEW%=%GUID%"
exit /b 0"#;
