//! libsmbclient as it has to be handled: the one file of this module with `unsafe` in it.
//!
//! What pavao's own interface leaves open, or gets wrong for us, is set here on the context that
//! pavao made:
//!
//! | trap | what is done about it |
//! |---|---|
//! | pavao keeps the password in a plain `String` and writes it to the `log` crate at trace level | pavao gets none; the credentials stay in [`SmbCredentials`] and an authentication callback of ours copies them straight into libsmbclient's buffer |
//! | after a failed login libsmbclient tries again anonymously | switched off |
//! | "require encryption" is not enforced: a server that can't encrypt, or that does not announce DFS, is written to in the clear | what libsmbclient reports about every message it sends is watched ([`Protection`]), and a connection that falls short is given up before anything is written |
//! | signing can be required only in an `smb.conf` | one is loaded from memory |
//! | the only errors are `errno` values, the same for a wrong password and a forbidden share | the steps of the login and the server's NT status are taken from libsmbclient's messages ([`Evidence`]) |
//! | libsmbclient prints to the process's standard output | C's `stdout`, which Rust does not use, is pointed at `/dev/null` |
//! | settings and log level are process-wide | one lock around every call ([`LIBRARY`]) |
//! | pavao refuses a client whose range of dialects differs from that of one that is still being closed | it is waited for ([`CLOSED`]) |
#![expect(
    unsafe_code,
    reason = "pavao exposes the context of libsmbclient, but not these settings"
)]

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::File;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use pavao::{SmbClient, SmbEncryptionLevel, SmbOptions};
use pavao_sys::{
    SMBCCTX, smbc_getOptionUserData, smbc_setConfiguration, smbc_setDebug,
    smbc_setFunctionAuthDataWithContext, smbc_setLogCallback, smbc_setOptionUserData,
};

use super::credentials::SmbCredentials;
use super::location::{SmbLocation, percent_encoded};
use super::security::{SmbDialect, SmbEncryption, SmbSecurity};

/// A context of libsmbclient, set up for one user on one share. It connects when it is first used.
pub(super) struct Native {
    client: ManuallyDrop<SmbClient>,
    required: Protection,
    // Read by `fill_in_credentials` for as long as `client` lives, which `drop` ends first.
    _credentials: Box<SmbCredentials>,
}

impl Native {
    /// Makes the context. Nothing is sent yet. Waits for up to `answer` for the end of connections
    /// with another range of dialects.
    pub(super) fn new(
        location: &SmbLocation,
        credentials: SmbCredentials,
        security: SmbSecurity,
        answer: Duration,
    ) -> Result<Self, NativeFailure> {
        silence_c_stdout();
        let server = location.server();
        let url = format!("smb://{}:{}", server.host(), server.port());
        let options = SmbOptions::default()
            .no_auto_anonymous_login(true)
            .one_share_per_server(true)
            .min_protocol(security.oldest_dialect.native())
            .max_protocol(SmbDialect::Smb3_11.native())
            .encryption_level(match security.encryption {
                SmbEncryption::Required => SmbEncryptionLevel::Require,
                SmbEncryption::IfDemanded => SmbEncryptionLevel::None,
            });
        let identity = pavao::SmbCredentials::default()
            .server(url)
            .share(format!("/{}", percent_encoded(location.share())));

        let mut client = Err(pavao::SmbError::ProtocolConfigurationConflict);
        // From here to the end: another client's settings and ours must not mix.
        let _library = CLOSED
            .wait_timeout_while(lock(), answer, |()| {
                client = SmbClient::new(identity.clone(), options.clone());
                matches!(client, Err(pavao::SmbError::ProtocolConfigurationConflict))
            })
            .unwrap_or_else(PoisonError::into_inner);
        let client = client.map_err(NativeFailure::setup)?;
        client.set_timeout(answer).map_err(NativeFailure::setup)?;
        let context = client.ctx().map_err(NativeFailure::setup)?;
        let credentials = Box::new(credentials);
        let user_data = std::ptr::from_ref(&*credentials).cast_mut().cast();
        let conf = conf_in_memory().map_err(NativeFailure::io)?;
        // SAFETY: `context` is the live context of `client`, and LIBRARY is held, so that no
        // other call into the library runs. `credentials` is boxed and outlives `client` (see
        // `drop`); the callbacks are functions, live for ever and never unwind. `conf.path` is a
        // NUL-terminated string that the call does not keep.
        let loaded = unsafe {
            smbc_setOptionUserData(context, user_data);
            smbc_setFunctionAuthDataWithContext(context, Some(fill_in_credentials));
            smbc_setLogCallback(context, std::ptr::null_mut(), Some(note_message));
            let loaded = smbc_setConfiguration(context, conf.path.as_ptr());
            // After the configuration, which may name a level of its own.
            smbc_setDebug(context, MESSAGES_OF_PROTECTION);
            loaded
        };
        if loaded != 0 {
            return Err(NativeFailure::io(std::io::Error::other(
                "libsmbclient did not take its configuration",
            )));
        }
        Ok(Self {
            client: ManuallyDrop::new(client),
            required: match security.encryption {
                SmbEncryption::Required => Protection::Encrypted,
                SmbEncryption::IfDemanded => Protection::Signed,
            },
            _credentials: credentials,
        })
    }

    /// Does one thing with the library, alone, and checks how what it sent was protected.
    pub(super) fn run<'c, T, E: Into<NativeFailure>>(
        &'c self,
        operation: impl FnOnce(&'c SmbClient) -> Result<T, E>,
    ) -> Result<T, NativeFailure> {
        let _library = lock();
        EVIDENCE.with_borrow_mut(|evidence| *evidence = Evidence::default());
        let result = operation(&self.client).map_err(Into::into);
        let evidence = EVIDENCE.with_borrow_mut(std::mem::take);
        match result {
            // A failure to log in comes before there is anything to protect with.
            Err(failure) => Err(NativeFailure {
                evidence,
                ..failure
            }),
            Ok(value) if evidence.protection >= self.required => Ok(value),
            Ok(_) => Err(NativeFailure {
                unprotected: true,
                evidence,
                ..NativeFailure::default()
            }),
        }
    }

    /// Closes a file, which tells nothing about how it went.
    pub(super) fn close(file: pavao::SmbFile<'_>) {
        let _library = lock();
        drop(file);
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        let _library = lock();
        // SAFETY: this is the end of `self`; nobody uses the client after it.
        unsafe { ManuallyDrop::drop(&mut self.client) };
        CLOSED.notify_all();
    }
}

/// How the last message of an operation was protected.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Protection {
    /// Not that we know of.
    #[default]
    None,
    Signed,
    Encrypted,
}

/// What libsmbclient said while it worked.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    pub(super) protection: Protection,
    /// The login was accepted.
    pub(super) logged_in: bool,
    /// The share was entered.
    pub(super) in_share: bool,
    /// The server's answer could not be trusted: not signed, or wrongly.
    pub(super) bad_signature: bool,
    /// What the server said to a refused login.
    pub(super) login_answer: Option<String>,
    /// The NT status behind the last `errno`.
    pub(super) nt_status: Option<u32>,
}

impl Evidence {
    fn note(&mut self, message: &str) {
        let message = message.trim();
        if message.contains("Encrypted SMB2 message") {
            self.protection = Protection::Encrypted;
        } else if message.starts_with("signed SMB2 message") {
            self.protection = Protection::Signed;
        } else if message == "session setup ok" {
            self.logged_in = true;
        } else if message == "tconx ok" {
            self.in_share = true;
        } else if message.starts_with("Bad SMB2") && message.contains("signature") {
            self.bad_signature = true;
        } else if let Some(answer) = message.strip_prefix("SPNEGO login failed: ") {
            self.login_answer = Some(answer.to_owned());
        } else if let Some((_, rest)) = message.split_once("to_errno: 0x") {
            let digits = rest.get(..8).unwrap_or_default();
            self.nt_status = u32::from_str_radix(digits, 16).ok();
        }
    }
}

/// A failed call, with all that is known about it.
#[derive(Debug, Default)]
pub(super) struct NativeFailure {
    /// What the system call would have been refused with.
    pub(super) errno: Option<i32>,
    /// What else pavao or the library said.
    pub(super) message: Option<String>,
    /// It worked, but not as well protected as is required.
    pub(super) unprotected: bool,
    pub(super) evidence: Evidence,
}

impl NativeFailure {
    fn setup(error: pavao::SmbError) -> Self {
        error.into()
    }

    fn io(error: std::io::Error) -> Self {
        error.into()
    }
}

impl From<pavao::SmbError> for NativeFailure {
    fn from(error: pavao::SmbError) -> Self {
        match error {
            pavao::SmbError::Io(error) => error.into(),
            other => Self {
                message: Some(other.to_string()),
                ..Self::default()
            },
        }
    }
}

impl From<std::io::Error> for NativeFailure {
    fn from(error: std::io::Error) -> Self {
        Self {
            errno: error.raw_os_error(),
            message: match error.raw_os_error() {
                None => Some(error.to_string()),
                Some(_) => None,
            },
            ..Self::default()
        }
    }
}

thread_local! {
    /// What the library said on this thread; its messages come on the thread that calls it.
    static EVIDENCE: RefCell<Evidence> = RefCell::default();
}

/// Held around every call: settings, log level and message callback of libsmbclient belong to the
/// process, not to the context they are set through.
static LIBRARY: Mutex<()> = Mutex::new(());

fn lock() -> MutexGuard<'static, ()> {
    // It guards no data of ours that a panic could leave half-changed.
    LIBRARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Told when a client is gone. Connections are closed by their own threads, some time after they
/// were last used; until then pavao makes no client with another range of dialects.
static CLOSED: Condvar = Condvar::new();

/// libsmbclient asks who we are.
extern "C" fn fill_in_credentials(
    context: *mut SMBCCTX,
    _server: *const c_char,
    _share: *const c_char,
    domain: *mut c_char,
    domain_size: c_int,
    username: *mut c_char,
    username_size: c_int,
    password: *mut c_char,
    password_size: c_int,
) {
    // SAFETY: libsmbclient calls this with its live context, whose user data `Native::new` set to
    // credentials that outlive it. The three buffers are writable for their sizes.
    unsafe {
        let credentials: *const SmbCredentials = smbc_getOptionUserData(context).cast();
        let Some(credentials) = credentials.as_ref() else {
            return;
        };
        copy_out(credentials.domain(), domain, domain_size);
        copy_out(credentials.username(), username, username_size);
        copy_out(credentials.password(), password, password_size);
    }
}

/// Copies `text` and a NUL into a buffer of C's, or nothing but the NUL if it does not fit: half a
/// password would be a wrong one.
///
/// # Safety
///
/// `buffer` is writable for `size` bytes.
unsafe fn copy_out(text: &str, buffer: *mut c_char, size: c_int) {
    let Ok(size @ 1..) = usize::try_from(size) else {
        return;
    };
    let text = if text.len() < size { text } else { "" };
    // SAFETY: `text.len() + 1 <= size`, which the caller says is writable; the two do not overlap,
    // as `text` is a Rust string that nobody may write to.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), buffer, text.len());
        buffer.add(text.len()).write(0);
    }
}

/// libsmbclient says something. It is looked at and not kept or passed on.
extern "C" fn note_message(_private: *mut c_void, _level: c_int, message: *const c_char) {
    if message.is_null() {
        return;
    }
    // SAFETY: not null, and libsmbclient passes a NUL-terminated string for the call's duration.
    let message = unsafe { CStr::from_ptr(message) };
    // Neither of these can panic, which would be the end of the process here.
    let message = message.to_str().unwrap_or_default();
    let _ = EVIDENCE.try_with(|evidence| {
        if let Ok(mut evidence) = evidence.try_borrow_mut() {
            evidence.note(message);
        }
    });
}

/// A configuration file that exists in memory only.
struct MemoryConf {
    /// Its path, for as long as `_file` is open.
    path: CString,
    _file: File,
}

fn conf_in_memory() -> std::io::Result<MemoryConf> {
    let fd = rustix::fs::memfd_create("smb.conf", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(CONF)?;
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    Ok(MemoryConf { path, _file: file })
}

/// Keeps what libsmbclient prints ("Could not resolve ...") out of our standard output, where one
/// JSON object a line is promised.
fn silence_c_stdout() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: both are NUL-terminated strings.
        let null = unsafe { libc::fopen(c"/dev/null".as_ptr(), c"w".as_ptr()) };
        if !null.is_null() {
            // SAFETY: glibc documents `stdout` as a variable that can be set. Rust's own standard
            // output does not go through it, and no other C library is asked to print. What was
            // buffered in the old stream is flushed at exit as before.
            unsafe { stdout = null };
        }
    });
}

unsafe extern "C" {
    static mut stdout: *mut libc::FILE;
}

/// The level of libsmbclient's messages at which it says of every message how it was protected.
/// Few lines per request, none with a secret in it.
const MESSAGES_OF_PROTECTION: c_int = 5;

/// Laid over whatever `smb.conf` the machine has. The dialects are not here, as pavao sets them.
const CONF: &[u8] = b"[global]
client signing = required
client ipc signing = required
client ntlmv2 auth = yes
client lanman auth = no
client plaintext auth = no
client use spnego = yes
name resolve order = host
";

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(messages: &[&str]) -> Evidence {
        let mut evidence = Evidence::default();
        for message in messages {
            evidence.note(message);
        }
        evidence
    }

    #[test]
    fn the_last_message_of_an_operation_decides_on_its_protection() {
        let signed = "signed SMB2 message (sign_algo_id=2)\n";
        let encrypted = "smb2_signing_encrypt_pdu: Encrypted SMB2 message\n";
        assert_eq!(noted(&[]).protection, Protection::None);
        assert_eq!(
            noted(&[signed, encrypted]).protection,
            Protection::Encrypted
        );
        assert_eq!(noted(&[encrypted, signed]).protection, Protection::Signed);
    }

    #[test]
    fn the_steps_of_a_login_and_the_status_are_taken_from_the_messages() {
        let evidence = noted(&[
            " session setup ok\n",
            " tconx ok\n",
            "cli_status_to_errno: 0xc0000034 -> 2\n",
        ]);
        assert!(evidence.logged_in && evidence.in_share);
        assert_eq!(evidence.nt_status, Some(0xc000_0034));
        let evidence = noted(&["SPNEGO login failed: Account locked out\n"]);
        assert_eq!(evidence.login_answer.as_deref(), Some("Account locked out"));
        assert!(noted(&["Bad SMB2 (sign_algo_id=2) signature for message\n"]).bad_signature);
    }

    #[test]
    fn a_field_that_does_not_fit_is_left_empty() {
        let mut buffer = [1 as c_char; 4];
        // SAFETY: the buffer is as long as is said.
        unsafe { copy_out("abcd", buffer.as_mut_ptr(), 4) };
        assert_eq!(buffer[0], 0);
        // SAFETY: the buffer is as long as is said.
        unsafe { copy_out("abc", buffer.as_mut_ptr(), 4) };
        assert_eq!(buffer.map(|c| c as u8), *b"abc\0");
    }
}
