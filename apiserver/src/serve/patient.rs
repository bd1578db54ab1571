//! A connection with limits to how long its peer may say nothing at first, and take nothing at any time.
//!
//! hyper bounds the headers of a request, and pings idle HTTP/2 connections; neither helps against a peer that never begins,
//! or that leaves what is sent to it unread: a watch nobody reads would hold its connection and its buffers for good.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream that gives up on its peer.
pub(super) struct Patient<S> {
    stream: S,
    /// Bytes that must still come before the peer counts as having begun, and until when.
    opening: usize,
    begin: Option<Pin<Box<Sleep>>>,
    /// How long a write may wait; the timer runs while one does.
    write: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    /// A stream whose peer must send `opening` bytes within `begin`, and take what is written within `write`.
    pub(super) fn new(stream: S, opening: usize, begin: Duration, write: Duration) -> Self {
        Self {
            stream,
            opening,
            begin: Some(Box::pin(sleep(begin))),
            write,
            stalled: None,
        }
    }

    /// What a write comes to: waiting has an end.
    fn written<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.write;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        timer.as_mut().poll(cx).map(|()| {
            let message = format!("the peer took nothing for {} s", limit.as_secs_f32());
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let this = &mut *self;
        if let Some(timer) = &mut this.begin {
            this.opening = this.opening.saturating_sub(buffer.filled().len() - before);
            if this.opening == 0 {
                this.begin = None;
            } else if read.is_pending() && timer.as_mut().poll(cx).is_ready() {
                let message = "the peer did not begin in time";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)));
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.written(cx, shut)
    }
}
