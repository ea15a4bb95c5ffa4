//! The ring buffer's reader: a thread of its own that nothing may block but the
//! kernel's ring itself, where a loss is counted.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use libbpf_rs::{AsRawLibbpf, MapHandle, RingBuffer, RingBufferBuilder, libbpf_sys};
use weir_core::event::Event;

use crate::decode;

/// While events come, the ring is emptied this often. It holds some 100,000
/// openings, twenty times what one core opens in this time. Oftener would cost
/// more than it gives: each time two threads of weir wake.
const DRAIN_INTERVAL: Duration = Duration::from_millis(5);
/// Events handed on at once: one send instead of a thousand.
const BATCH_EVENTS: usize = 1024;
/// After so long without an event the reader sleeps until one wakes it.
const AWAKE: Duration = Duration::from_millis(20);
/// How long a sleeping reader may take to notice that it shall stop.
const SLEEP: Duration = Duration::from_millis(200);

/// The reader thread cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    /// libbpf cannot map the ring.
    #[error("cannot map the kernel's event ring: {0}")]
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

/// The flag `reader_sleeps` of `bpf/maps.h`, in the memory shared with it.
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

impl Reader {
    /// `deliver` gets every event, in batches, on the reader's thread. It may
    /// block: then the ring fills, and the kernel counts what finds no room.
    pub(crate) fn start(
        events: MapHandle,
        sleeps: SleepFlag,
        undecodable: Arc<AtomicU64>,
        mut deliver: impl FnMut(Vec<Event>) + Send + 'static,
    ) -> Result<Self, ReaderError> {
        let stop = Arc::new(AtomicBool::new(false));
        let batch = Batch::default();
        let ring = build(&events, batch.clone(), undecodable).map_err(ReaderError::Ring)?;
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("ring".into())
            .spawn(move || {
                run(&ring, sleeps, &stopped, &batch, &mut deliver);
                // libbpf waits on this descriptor: it stays open until here.
                drop(events);
            })
            .map_err(ReaderError::Thread)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A panic in `deliver` was reported by its own thread already.
            let _ = thread.join();
        }
    }
}

/// Where libbpf's callback leaves the events. Only ever used by one thread.
#[derive(Clone, Default)]
struct Batch(Arc<Mutex<Vec<Event>>>);

impl Batch {
    fn push(&self, event: Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn build(
    events: &MapHandle,
    batch: Batch,
    undecodable: Arc<AtomicU64>,
) -> libbpf_rs::Result<RingBuffer<'static>> {
    let mut builder = RingBufferBuilder::new();
    builder.add(events, move |bytes| {
        match decode::event(bytes) {
            Some(event) => batch.push(event),
            None => {
                undecodable.fetch_add(1, Ordering::Relaxed);
            }
        }
        0
    })?;
    builder.build()
}

/// Drops what is in the ring.
pub(crate) fn discard(events: &MapHandle) -> Result<(), ReaderError> {
    let mut builder = RingBufferBuilder::new();
    builder.add(events, |_| 0).map_err(ReaderError::Ring)?;
    let ring = builder.build().map_err(ReaderError::Ring)?;
    while ring.consume_raw_n(BATCH_EVENTS) > 0 {}
    Ok(())
}

/// Empties the ring. Whether there was anything in it.
fn drain(ring: &RingBuffer<'_>, batch: &Batch, deliver: &mut impl FnMut(Vec<Event>)) -> bool {
    let mut any = false;
    while ring.consume_raw_n(BATCH_EVENTS) > 0 {
        any = true;
        deliver(batch.take());
    }
    any
}

fn run(
    ring: &RingBuffer<'_>,
    sleeps: SleepFlag,
    stop: &AtomicBool,
    batch: &Batch,
    deliver: &mut impl FnMut(Vec<Event>),
) {
    let mut last_event = Instant::now();
    loop {
        let stopping = stop.load(Ordering::SeqCst);
        if drain(ring, batch, deliver) {
            last_event = Instant::now();
        } else if stopping {
            return;
        }
        if stopping || last_event.elapsed() < AWAKE {
            std::thread::sleep(DRAIN_INTERVAL);
            continue;
        }
        // Say that we sleep, then look once more: a program that reserved
        // before the flag was set is seen here, one that reserves after it
        // sees the flag (bpf/emit.h).
        sleeps.set(1);
        fence(Ordering::SeqCst);
        if !has_records(ring) {
            // Takes what woke it out of the ring.
            if ring.poll_raw(SLEEP) > 0 {
                last_event = Instant::now();
                deliver(batch.take());
            }
        }
        sleeps.set(0);
    }
}

fn has_records(ring: &RingBuffer<'_>) -> bool {
    // SAFETY: the ring lives as long as the borrow, and it was built with one map.
    unsafe {
        let first = libbpf_sys::ring_buffer__ring(ring.as_libbpf_object().as_ptr(), 0);
        !first.is_null() && libbpf_sys::ring__avail_data_size(first) > 0
    }
}
