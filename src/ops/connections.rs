//! The open connections of one listener. Their number is bounded, and whoever holds one cannot shut others out: a new
//! connection replaces the one that has been without a request for longest; event streams, which last, are counted
//! apart; a client that takes nothing any more is given up.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep};

/// Connections at a time, without event streams: operators, scrapers and probes of one host.
pub(super) const MAX_CONNECTIONS: usize = 64;
/// Event streams at a time: pages and `gossd watch`.
pub(super) const MAX_STREAMS: usize = 32;
/// How long a client may take nothing of an answer that waits for it.
const UNREAD: Duration = Duration::from_secs(30);

/// The open connections of a listener.
#[derive(Default)]
pub(super) struct AdminConnections {
    last: AtomicU64,
    open: Mutex<HashMap<u64, Arc<AdminConnection>>>,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// A request is being answered.
    Answering,
    /// Its last answer is made: it is being read, or there was no request yet.
    Waiting,
    /// It is an event stream, for ever.
    Streaming,
}

/// One of the open connections.
pub(super) struct AdminConnection {
    doing: Mutex<(Doing, Instant)>,
    closing: Notify,
}

/// A connection's place in the table, which ends with it.
pub(super) struct ConnectionPlace {
    table: Arc<AdminConnections>,
    number: u64,
    pub(super) connection: Arc<AdminConnection>,
}

impl AdminConnections {
    /// A place for a new connection; none if there is no room, and all are being answered.
    pub(super) fn open(self: &Arc<Self>) -> Option<ConnectionPlace> {
        let mut open = self.lock();
        let short = open.values().filter(|connection| connection.doing().0 != Doing::Streaming).count();
        if short >= MAX_CONNECTIONS {
            let waiting = open.iter().filter(|(_, connection)| connection.doing().0 == Doing::Waiting);
            let number = *waiting.min_by_key(|(number, connection)| (connection.doing().1, **number))?.0;
            if let Some(evicted) = open.remove(&number) {
                evicted.closing.notify_one();
            }
        }
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let doing = Mutex::new((Doing::Waiting, Instant::now()));
        let connection = Arc::new(AdminConnection { doing, closing: Notify::new() });
        open.insert(number, connection.clone());
        Some(ConnectionPlace { table: self.clone(), number, connection })
    }

    /// Makes an event stream of a connection, if there may be one more.
    pub(super) fn stream(&self, connection: &AdminConnection) -> bool {
        let open = self.lock();
        let streams = open.values().filter(|connection| connection.doing().0 == Doing::Streaming).count();
        if streams >= MAX_STREAMS {
            return false;
        }
        connection.is(Doing::Streaming);
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<AdminConnection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AdminConnection {
    /// A request has arrived.
    pub(super) fn asked(&self) {
        self.is(Doing::Answering);
    }

    /// The answer is made, and is about to be sent.
    pub(super) fn answered(&self) {
        if self.doing().0 == Doing::Answering {
            self.is(Doing::Waiting);
        }
    }

    /// Resolves when another connection needs the place.
    pub(super) async fn closing(&self) {
        self.closing.notified().await;
    }

    fn doing(&self) -> (Doing, Instant) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is(&self, doing: Doing) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = (doing, Instant::now());
    }
}

impl ConnectionPlace {
    /// What a request's handler makes a stream of.
    pub(super) fn streams(&self) -> Streams {
        Streams { table: self.table.clone(), connection: self.connection.clone() }
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.table.lock().remove(&self.number);
    }
}

/// Makes a stream of the connection on which a request arrived: an extension of every request.
#[derive(Clone)]
pub(super) struct Streams {
    table: Arc<AdminConnections>,
    connection: Arc<AdminConnection>,
}

impl Streams {
    /// Whether the connection may be a stream from now on.
    pub(super) fn open(&self) -> bool {
        self.table.stream(&self.connection)
    }
}

/// A connection that ends when its client has taken nothing for [`UNREAD`] although something waits for it.
pub(super) struct ImpatientStream<S> {
    inner: S,
    unread: Option<Pin<Box<Sleep>>>,
}

impl<S> ImpatientStream<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, unread: None }
    }

    pub(super) fn into_inner(self) -> S {
        self.inner
    }

    fn wrote<T>(&mut self, poll: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.unread = None;
            return poll;
        }
        let unread = self.unread.get_or_insert_with(|| Box::pin(sleep(UNREAD)));
        unread.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ImpatientStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ImpatientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.wrote(poll, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.wrote(poll, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(context);
        self.wrote(poll, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_shutdown(context);
        self.wrote(poll, context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn is_closing(place: &ConnectionPlace) -> bool {
        tokio::time::timeout(Duration::ZERO, place.connection.closing()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_takes_the_place_of_the_one_that_waits_for_longest() {
        let table = Arc::new(AdminConnections::default());
        let places: Vec<ConnectionPlace> = (0..MAX_CONNECTIONS).map(|_| table.open().unwrap()).collect();
        places[0].connection.asked();
        tokio::time::advance(Duration::from_secs(1)).await;
        places[1].connection.asked();
        places[1].connection.answered();
        let new = table.open().unwrap();
        assert!(is_closing(&places[2]).await, "it waits for longest");
        for (at, place) in places.iter().enumerate().filter(|(at, _)| *at != 2) {
            assert!(!is_closing(place).await, "{at}");
            place.connection.asked();
        }
        new.connection.asked();
        assert!(table.open().is_none(), "all are being answered");
        places[7].connection.answered();
        assert!(table.open().is_some());
    }

    #[tokio::test]
    async fn streams_take_no_place_of_others_and_are_bounded() {
        let table = Arc::new(AdminConnections::default());
        let mut streams: Vec<ConnectionPlace> = (0..MAX_STREAMS).map(|_| table.open().unwrap()).collect();
        for stream in &streams {
            stream.connection.asked();
            assert!(stream.streams().open());
            stream.connection.answered();
        }
        let others: Vec<ConnectionPlace> = (0..MAX_CONNECTIONS).map(|_| table.open().unwrap()).collect();
        for place in streams.iter().chain(&others) {
            assert!(!is_closing(place).await, "there is room for all");
        }
        assert!(!others[0].streams().open(), "one more than there may be");
        drop(streams.pop());
        assert!(others[0].streams().open(), "one has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up_and_a_slow_one_is_not() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = ImpatientStream::new(server);
        let write = tokio::spawn(async move { server.write_all(&[0; 256]).await });
        for _ in 0..4 {
            sleep(UNREAD / 2).await;
            client.read_exact(&mut [0; 64]).await.unwrap();
        }
        assert!(write.await.unwrap().is_ok(), "it took something every time");
        let (_client, server) = tokio::io::duplex(64);
        let before = Instant::now();
        let error = ImpatientStream::new(server).write_all(&[0; 256]).await.unwrap_err();
        assert_eq!((error.kind(), before.elapsed()), (io::ErrorKind::TimedOut, UNREAD));
    }
}
