//! A ring buffer's reader: a thread of its own that nothing may block but the
//! kernel's ring itself, where a loss is counted.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use libbpf_rs::{AsRawLibbpf, MapCore, MapHandle, RingBuffer, RingBufferBuilder, libbpf_sys};
use weir_core::event::Event;

use crate::decode;

/// While records come, a ring is emptied this often. It holds some 100,000
/// openings, twenty times what one core opens in this time. Oftener would cost
/// more than it gives: each time two threads of weir wake.
const DRAIN_INTERVAL: Duration = Duration::from_millis(5);
/// Records handed on at once: one send instead of a thousand.
const BATCH_RECORDS: usize = 1024;
/// After so many the reader gives way to who waits for its processor, some 20 µs of parsing. Schedulers let it finish
/// its slice of milliseconds otherwise (EEVDF, Linux 6.6), and a server that waits so long leaves the other processor
/// idle, when its client is there.
const RECORDS_AT_ONCE: usize = 32;
/// A reader that is called when its ring fills is not needed so often. Each time it
/// sweeps through the caches that those who are watched would have used, so `weir audit`
/// took a fifth less time for a request with 20 ms than with 5; payload of 100 MB/s fills
/// a quarter of the ring in that time, and then it is called.
const NAP: Duration = Duration::from_millis(20);
/// After so many intervals without a record the reader sleeps until one wakes it.
const AWAKE_INTERVALS: u32 = 4;
/// How long a sleeping reader may take to notice that it shall stop, and how long it empties the ring then.
const SLEEP: Duration = Duration::from_millis(200);

/// The reader thread cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    /// libbpf cannot map the ring.
    #[error("cannot map the ring of the kernel's events: {0}")]
    Ring(#[source] libbpf_rs::Error),
    /// The loaded object has no .bss.
    #[error("the loaded programs have no memory to share with user space")]
    NoSharedMemory,
    /// No thread.
    #[error("cannot start the thread that reads the kernel's events: {0}")]
    Thread(#[source] io::Error),
}

/// The running reader. Dropping it reads what is in the ring and ends the thread.
pub(crate) struct Reader {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A flag of `bpf/maps.h`, such as `reader_sleeps`, in the memory shared with it.
#[derive(Clone, Copy)]
pub(crate) struct SleepFlag(pub(crate) *mut u32);

// SAFETY: the flag is only touched as an atomic; whoever makes one keeps the
// mapping alive for longer than the reader (see Datapath).
unsafe impl Send for SleepFlag {}

impl SleepFlag {
    fn set(self, value: u32) {
        // SAFETY: aligned (the kernel lays out a __u32) and alive, see above.
        unsafe { AtomicU32::from_ptr(self.0) }.store(value, Ordering::SeqCst);
    }
}

/// What becomes of a ring's records, on its reader's thread.
pub(crate) trait Consumer: Send {
    /// One record.
    fn record(&mut self, bytes: &[u8]);

    /// A batch's worth of them has come, or there are no more for now.
    fn rest(&mut self);

    /// There are no more of them for now: everything that was said until now has been read.
    fn idle(&mut self) {}

    /// There will be no more.
    fn finish(&mut self) {}
}

/// How the reader rests while records come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naps {
    /// Nobody calls it.
    Alone,
    /// The kernel side calls it when the ring fills.
    UntilFilling,
}

impl Naps {
    fn interval(self) -> Duration {
        match self {
            Self::Alone => DRAIN_INTERVAL,
            Self::UntilFilling => NAP,
        }
    }
}

/// Values of a [`SleepFlag`]; see `bpf/maps.h`.
const AWAKE_FLAG: u32 = 0;
const SLEEPS_FLAG: u32 = 1;
const NAPS_FLAG: u32 = 2;

impl Reader {
    pub(crate) fn start(
        name: &str,
        ring: MapHandle,
        sleeps: SleepFlag,
        naps: Naps,
        consumer: impl Consumer + 'static,
    ) -> Result<Self, ReaderError> {
        let stop = Arc::new(AtomicBool::new(false));
        // libbpf's callback holds one, the thread the other: nobody ever waits for it.
        let consumer = Arc::new(Mutex::new(consumer));
        let records = build(&ring, consumer.clone()).map_err(ReaderError::Ring)?;
        let stopped = stop.clone();
        let ring_bytes = ring.max_entries() as usize;
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                run(&records, ring_bytes, sleeps, naps, &stopped, &consumer);
                lock(&consumer).finish();
                // libbpf waits on this descriptor: it stays open until here.
                drop(ring);
            })
            .map_err(ReaderError::Thread)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A panic of the consumer's was reported by its own thread already.
            let _ = thread.join();
        }
    }
}

/// Events, decoded, to be delivered in batches.
pub(crate) struct EventBatch<D> {
    events: Vec<Event>,
    undecodable: Arc<AtomicU64>,
    deliver: D,
}

impl<D: FnMut(Vec<Event>) + Send> EventBatch<D> {
    /// `deliver` may block: then the ring fills, and the kernel counts what finds no room.
    pub(crate) fn new(undecodable: Arc<AtomicU64>, deliver: D) -> Self {
        Self { events: Vec::new(), undecodable, deliver }
    }
}

impl<D: FnMut(Vec<Event>) + Send> Consumer for EventBatch<D> {
    fn record(&mut self, bytes: &[u8]) {
        match decode::event(bytes) {
            Some(event) => self.events.push(event),
            None => {
                self.undecodable.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn rest(&mut self) {
        if !self.events.is_empty() {
            (self.deliver)(std::mem::take(&mut self.events));
        }
    }
}

fn lock<C>(consumer: &Mutex<C>) -> std::sync::MutexGuard<'_, C> {
    consumer.lock().unwrap_or_else(PoisonError::into_inner)
}

fn build<C: Consumer + 'static>(
    ring: &MapHandle,
    consumer: Arc<Mutex<C>>,
) -> libbpf_rs::Result<RingBuffer<'static>> {
    let mut builder = RingBufferBuilder::new();
    builder.add(ring, move |bytes| {
        lock(&consumer).record(bytes);
        0
    })?;
    builder.build()
}

/// Drops what is in the ring.
pub(crate) fn discard(events: &MapHandle) -> Result<(), ReaderError> {
    let mut builder = RingBufferBuilder::new();
    builder.add(events, |_| 0).map_err(ReaderError::Ring)?;
    let ring = builder.build().map_err(ReaderError::Ring)?;
    while ring.consume_raw_n(BATCH_RECORDS) > 0 {}
    Ok(())
}

/// Empties the ring, which holds `ring_bytes`. Whether there was anything in it.
fn drain(ring: &RingBuffer<'_>, ring_bytes: usize, consumer: &Mutex<impl Consumer>) -> bool {
    let mut records = 0;
    while ring.consume_raw_n(RECORDS_AT_ONCE) > 0 {
        records += RECORDS_AT_ONCE;
        if records.is_multiple_of(BATCH_RECORDS) {
            lock(consumer).rest();
        }
        // Who is behind does not: the ring is there for a moment of work, not for a busy host.
        if waiting_bytes(ring) < ring_bytes / 4 {
            std::thread::yield_now();
        }
    }
    lock(consumer).rest();
    lock(consumer).idle();
    records > 0
}

fn run(
    ring: &RingBuffer<'_>,
    ring_bytes: usize,
    sleeps: SleepFlag,
    naps: Naps,
    stop: &AtomicBool,
    consumer: &Mutex<impl Consumer>,
) {
    let mut last_record = Instant::now();
    let mut asked_to_stop = None;
    loop {
        let stopping = stop.load(Ordering::SeqCst);
        if drain(ring, ring_bytes, consumer) {
            last_record = Instant::now();
        } else if stopping {
            return;
        }
        if stopping {
            // Programs that are pinned go on filling it.
            if asked_to_stop.get_or_insert_with(Instant::now).elapsed() > SLEEP {
                return;
            }
            continue;
        }
        let interval = naps.interval();
        if last_record.elapsed() < interval * AWAKE_INTERVALS {
            match naps {
                Naps::Alone => std::thread::sleep(interval),
                Naps::UntilFilling => {
                    sleeps.set(NAPS_FLAG);
                    // Takes out what woke it; what comes without waking it is drained next.
                    if ring.poll_raw(interval) > 0 {
                        last_record = Instant::now();
                        lock(consumer).rest();
                    }
                    sleeps.set(AWAKE_FLAG);
                }
            }
            continue;
        }
        // Say that we sleep, then look once more: a program that reserved
        // before the flag was set is seen here, one that reserves after it
        // sees the flag (bpf/emit.h).
        sleeps.set(SLEEPS_FLAG);
        fence(Ordering::SeqCst);
        if waiting_bytes(ring) == 0 {
            // Takes what woke it out of the ring.
            if ring.poll_raw(SLEEP) > 0 {
                last_record = Instant::now();
            }
            lock(consumer).rest();
        }
        sleeps.set(AWAKE_FLAG);
    }
}

/// What is in the ring.
fn waiting_bytes(ring: &RingBuffer<'_>) -> usize {
    // SAFETY: the ring lives as long as the borrow, and it was built with one map.
    unsafe {
        let first = libbpf_sys::ring_buffer__ring(ring.as_libbpf_object().as_ptr(), 0);
        if first.is_null() { 0 } else { libbpf_sys::ring__avail_data_size(first) as usize }
    }
}
