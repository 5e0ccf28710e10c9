//! The queue between the threads that log and standard error. A thread that logs copies its line into memory and goes on;
//! one thread of its own writes. A stopped terminal, or a pipe that nobody reads, blocks only that thread. Lines for which
//! the queue has no room are dropped and counted, and a line tells how many once the writer goes on. Does not know what a
//! line means.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use rustix::event::{PollFd, PollFlags, poll};

/// Most bytes that wait: about 5,000 lines. The writer holds at most as many.
const MAX_BYTES: usize = 1 << 20;
/// Larger buffers are freed after they are written: they are needed only while nobody reads.
const USUAL_BYTES: usize = 64 << 10;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct LineQueue {
    state: Mutex<QueueState>,
    /// There is something to write.
    filled: Condvar,
    /// Everything is written.
    drained: Condvar,
    dropped: Counter,
}

#[derive(Debug, Default)]
struct QueueState {
    /// Whole lines, in the order in which they came.
    waiting: Vec<u8>,
    /// Whether the writer has lines that are not written yet.
    writing: bool,
    /// Lines dropped since the last line that tells how many.
    untold: u64,
}

impl LineQueue {
    /// A queue, and the thread that writes it to a stream until the process ends. `tell` logs how many lines were dropped.
    pub(super) fn to(stream: File, tell: impl Fn(u64) + Send + 'static) -> std::io::Result<Arc<Self>> {
        let queue = Arc::<Self>::default();
        let writer = Writer { queue: queue.clone(), stream, tell };
        thread::Builder::new().name("log".into()).spawn(move || writer.write())?;
        Ok(queue)
    }

    /// Takes a line, given in pieces, or drops it. Waits for nothing but memory.
    pub(super) fn push(&self, line: &[&[u8]]) {
        let mut state = self.lock();
        let size: usize = line.iter().map(|piece| piece.len()).sum();
        if state.waiting.len() + size > MAX_BYTES {
            state.untold += 1;
            self.dropped.inc();
            return;
        }
        let was_empty = state.waiting.is_empty();
        for piece in line {
            state.waiting.extend_from_slice(piece);
        }
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Waits until everything is written, for at most this long. Returns whether it is.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        while state.writing || !state.waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            (state, _) = self.drained.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// How many lines were dropped since the start.
    pub(super) fn dropped(&self) -> Counter {
        self.dropped.clone()
    }

    /// Waits for lines, and takes them all; leaves an empty buffer.
    fn take(&self, buffer: &mut Vec<u8>) {
        let mut state = self.lock();
        while state.waiting.is_empty() {
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.writing = true;
        mem::swap(&mut state.waiting, buffer);
    }

    /// The lines that were taken are written, except this many.
    fn written(&self, lost: u64) {
        self.dropped.inc_by(lost);
        let mut state = self.lock();
        state.untold += lost;
        state.writing = false;
        drop(state);
        self.drained.notify_all();
    }

    fn take_untold(&self) -> u64 {
        mem::take(&mut self.lock().untold)
    }

    /// The state is consistent between any two statements, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer<T> {
    queue: Arc<LineQueue>,
    stream: File,
    tell: T,
}

impl<T: Fn(u64)> Writer<T> {
    fn write(self) -> ! {
        let mut lines = Vec::new();
        let mut takes = true;
        loop {
            self.queue.take(&mut lines);
            if takes {
                // The dropped lines belong here: after those that waited, before those that follow.
                self.tell_dropped();
            }
            let lost = write_all(&self.stream, &lines);
            if lost == 0 && !takes {
                self.tell_dropped();
            }
            // While the stream takes nothing, one more line would be dropped as well.
            takes = lost == 0;
            lines.clear();
            lines.shrink_to(USUAL_BYTES);
            self.queue.written(lost);
        }
    }

    fn tell_dropped(&self) {
        let dropped = self.queue.take_untold();
        if dropped > 0 {
            (self.tell)(dropped);
        }
    }
}

/// How many lines the stream did not take.
fn write_all(mut stream: &File, mut lines: &[u8]) -> u64 {
    while !lines.is_empty() {
        match stream.write(lines) {
            Ok(0) => break,
            Ok(taken) => lines = lines.get(taken..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another process that shares the terminal or the pipe may have made it non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let _interrupted = poll(&mut [PollFd::new(stream, PollFlags::OUT)], None);
            }
            Err(_) => break,
        }
    }
    lines.split_inclusive(|byte| *byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read as _, pipe};
    use std::os::fd::OwnedFd;

    use rustix::fs::{OFlags, fcntl_setfl};

    use super::*;

    const SOON: Duration = Duration::from_secs(20);
    const NOT_LONG: Duration = Duration::from_millis(50);

    /// A queue that reports dropped lines in a line of its own, and the reading end of its stream.
    fn queue() -> (Arc<LineQueue>, PipeReader) {
        let (reader, writer) = pipe().unwrap();
        (to(OwnedFd::from(writer)), reader)
    }

    fn to(writer: OwnedFd) -> Arc<LineQueue> {
        let own = Arc::<std::sync::OnceLock<Arc<LineQueue>>>::default();
        let told = own.clone();
        let tell = move |dropped| told.wait().push(&[format!("{dropped} dropped\n").as_bytes()]);
        let queue = LineQueue::to(File::from(writer), tell).unwrap();
        own.set(queue.clone()).unwrap();
        queue
    }

    /// Lines, read up to and including the given last one.
    fn read_until(mut reader: impl std::io::Read, last: &str) -> Vec<String> {
        let (mut text, mut piece) = (String::new(), [0; 4_096]);
        while !text.ends_with(&format!("{last}\n")) {
            let read = reader.read(&mut piece).unwrap();
            assert_ne!(read, 0, "it ends before {last}: {text}");
            text += std::str::from_utf8(&piece[..read]).unwrap();
        }
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_come_whole_and_each_threads_in_its_order() {
        let (queue, reader) = queue();
        let (threads, each) = (4, 2_000);
        thread::scope(|scope| {
            for thread in 0..threads {
                let queue = &queue;
                scope.spawn(move || {
                    for n in 0..each {
                        queue.push(&[b"<4>", format!("{thread} {n}\n").as_bytes()]);
                    }
                });
            }
            scope.spawn(|| {
                let mut next = vec![0; threads];
                let mut lines = std::io::BufRead::lines(std::io::BufReader::new(&reader));
                while next.iter().sum::<usize>() < threads * each {
                    let line = lines.next().unwrap().unwrap();
                    let (thread, n) = line.strip_prefix("<4>").unwrap().split_once(' ').unwrap();
                    let thread: usize = thread.parse().unwrap();
                    assert_eq!(n.parse(), Ok(next[thread]));
                    next[thread] += 1;
                }
            });
        });
        assert!(queue.flush(SOON));
        assert_eq!(queue.dropped().get(), 0);
    }

    #[test]
    fn a_stream_that_nobody_reads_holds_up_nobody_and_then_tells_how_many_lines_it_missed() {
        let (queue, reader) = queue();
        let line = |n: usize| format!("{n:0>98}\n");
        let pushed = 3 * MAX_BYTES / line(0).len();
        for n in 0..pushed {
            queue.push(&[line(n).as_bytes()]);
        }
        let dropped = queue.dropped().get();
        let kept = pushed - usize::try_from(dropped).unwrap();
        assert!(kept * line(0).len() <= 2 * MAX_BYTES, "bounded: {kept} lines kept");
        let waiting = queue.lock().waiting.len();
        assert!(waiting <= MAX_BYTES && waiting + line(0).len() > MAX_BYTES, "{waiting}");
        assert!(!queue.flush(NOT_LONG), "nobody reads");

        let note = format!("{dropped} dropped");
        let lines = read_until(&reader, &note);
        assert_eq!(lines.len(), kept + 1);
        for (n, found) in lines[..kept].iter().enumerate() {
            assert_eq!(*found, line(n).trim_end(), "what came first is kept, in its order");
        }
        queue.push(&[b"after\n"]);
        assert_eq!(read_until(&reader, "after"), ["after"], "told once, and all goes on");
        assert!(queue.flush(SOON));
        assert!(queue.lock().waiting.capacity() <= MAX_BYTES, "no more than one buffer is kept");
    }

    #[test]
    fn a_line_that_is_too_long_is_dropped_alone() {
        let (queue, reader) = queue();
        queue.push(&[&vec![b'x'; MAX_BYTES + 1]]);
        queue.push(&[b"short\n"]);
        let mut lines = read_until(&reader, "1 dropped");
        lines.sort();
        assert_eq!(lines, ["1 dropped", "short"]);
        assert_eq!(queue.dropped().get(), 1);
    }

    #[test]
    fn a_stream_that_is_closed_counts_what_it_does_not_take_and_is_not_told() {
        let (queue, reader) = queue();
        drop(reader);
        for n in 1..=3 {
            queue.push(&[b"lost\n"]);
            assert!(queue.flush(SOON), "what is lost is not waited for");
            assert_eq!(queue.dropped().get(), n);
        }
        assert_eq!(queue.take_untold(), 3, "it is kept for when the stream takes lines again");
    }

    #[test]
    fn a_stream_that_somebody_made_not_wait_is_waited_for() {
        let (mut reader, writer) = pipe().unwrap();
        fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
        let queue = to(OwnedFd::from(writer));
        let text = vec![b'x'; 300_000];
        queue.push(&[&text]);
        queue.push(&[b"\n"]);
        let mut read = vec![0; text.len()];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(read, text);
        assert!(queue.flush(SOON));
        assert_eq!(queue.dropped().get(), 0);
    }
}
