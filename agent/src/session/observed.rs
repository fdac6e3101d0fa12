//! A TLS stream that remembers what the other side had against it.
//!
//! In TLS 1.3 a server looks at the client's certificate after the client is done with the
//! handshake. Its objection comes while the first bytes of HTTP/2 are on their way, and what HTTP/2
//! makes of it is a broken pipe. So it is caught here, below HTTP/2.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::Error as TlsError;

/// The stream.
#[derive(Debug)]
pub(super) struct Observed {
    stream: TlsStream<TcpStream>,
    objection: Objection,
    /// Why writing failed, while it is still to be read why.
    failed: Option<io::Error>,
}

/// What the other side had against the stream, if anything.
#[derive(Clone, Debug, Default)]
pub(super) struct Objection(Arc<Mutex<Option<TlsError>>>);

impl Objection {
    /// What it was.
    pub(super) fn take(&self) -> Option<TlsError> {
        // Whoever panicked with it left it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note(&self, error: &io::Error) {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
        if let Some(tls) = tls.cloned() {
            let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            noted.get_or_insert(tls);
        }
    }
}

impl Observed {
    /// Observes a stream, and notes there what is found.
    pub(super) fn new(stream: TlsStream<TcpStream>, objection: Objection) -> Self {
        Self {
            stream,
            objection,
            failed: None,
        }
    }

    /// Writes; what makes that fail may be told by what is still to be read. The other side has
    /// closed the connection then, so that the end of it is there or about to come.
    fn write_with<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TlsStream<TcpStream>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.failed.is_none() {
            match write(Pin::new(&mut self.stream), context) {
                Poll::Ready(Err(error)) => self.failed = Some(error),
                written => return written,
            }
        }
        ready!(self.read_to_the_end(context));
        Poll::Ready(Err(self
            .failed
            .take()
            .unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())))
    }

    fn read_to_the_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut unread = [0; 1024];
        loop {
            let mut unread = ReadBuf::new(&mut unread);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut unread)) {
                Ok(()) if unread.filled().is_empty() => return Poll::Ready(()),
                Ok(()) => {}
                Err(error) => {
                    self.objection.note(&error);
                    return Poll::Ready(());
                }
            }
        }
    }
}

impl AsyncRead for Observed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(Err(error)) = &read {
            self.objection.note(error);
        }
        read
    }
}

impl AsyncWrite for Observed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write_with(context, |stream, context| {
            stream.poll_write(context, buffer)
        })
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write_with(context, |stream, context| stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write_with(context, |stream, context| stream.poll_shutdown(context))
    }
}
