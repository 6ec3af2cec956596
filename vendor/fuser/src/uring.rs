//! Requests over io_uring: the second transport, beside reading `/dev/fuse`.
//!
//! The kernel (Linux 6.14 or newer, with the parameter `enable_uring` of its module `fuse`) keeps one
//! queue of requests for each possible CPU. Each queue gets *entries*: a header of 288 bytes and a
//! payload buffer, registered once. A request is written into an entry and completes the command
//! that registered it; the answer is written into the same entry, and one command hands it over and
//! waits for the next request. So answering one request and getting the next is one system call, on
//! the CPU of the program that asked.
//!
//! One thread for each CPU that is online serves its own queue (and those of CPUs that are not
//! there), pinned to it. It answers what it can on the spot. An answer from another thread is written
//! into the entry there and left to the ring's thread, which an eventfd wakes: commands belong to the
//! thread that submits them, and must not belong to one that does other work.
//!
//! FORGET, INTERRUPT and notifications stay on `/dev/fuse`, where a reader remains. As long as an
//! entry waits for its answer it takes no other request; there are [`Depth`] of them, and what finds
//! none free waits in the kernel.
//!
//! Wire facts: `include/uapi/linux/fuse.h` of Linux 6.14 (`fuse_uring_req_header`,
//! `fuse_uring_ent_in_out`, `fuse_uring_cmd_req`).

use std::cell::Cell;
use std::cell::RefCell;
use std::fs;
use std::io;
use std::io::IoSlice;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::ptr;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::Relaxed;

use io_uring::IoUring;
use io_uring::cqueue;
use io_uring::opcode;
use io_uring::squeue::Entry128;
use io_uring::types::Fd;
use log::debug;
use log::warn;
use nix::sched::CpuSet;
use nix::sched::sched_getaffinity;
use nix::sched::sched_setaffinity;
use nix::sys::eventfd::EfdFlags;
use nix::sys::eventfd::EventFd;
use nix::unistd::Pid;
use parking_lot::Mutex;

use crate::channel::ChannelSender;

const IORING_OP_URING_CMD: u8 = 46;
const FUSE_IO_URING_CMD_REGISTER: u32 = 1;
const FUSE_IO_URING_CMD_COMMIT_AND_FETCH: u32 = 2;

/// `fuse_in_header`, `fuse_out_header`, and the bytes of a request's first argument.
const IN_HEADER: usize = 40;
const OUT_HEADER: usize = 16;
const OP_MAX: usize = 128;
/// `fuse_uring_req_header`: the two headers, each in 128 bytes, then `fuse_uring_ent_in_out`.
const HEADERS: usize = 288;
const OP_AT: usize = 128;
const COMMIT_ID_AT: usize = 256 + 8;
const PAYLOAD_SIZE_AT: usize = 256 + 16;

/// Before the payload of an entry: its headers, then room in which a request is put together.
const FRONT: usize = 8192;
const ROOM_AT: usize = 512;
/// Larger requests are put together in place, right before their payload.
const ROOM: usize = FRONT - ROOM_AT - IN_HEADER - OP_MAX;

/// Payload buffers of a queue that may keep their memory; the others give back what a large answer
/// touched. The kernel takes the entry that was used last first, so few are touched again.
const RESIDENT_MAX: u32 = 8;
/// An answer up to this size costs too little memory to be given back.
const SMALL_PAYLOAD: u32 = 64 << 10;

/// The completion that says that other threads have left answers.
const WAKE: u64 = u64::MAX;

/// How many entries the queue of each CPU has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth(pub u32);

/// One request at a time, on its way in and its answer on its way out.
struct Entry {
    /// A mapping of [`FRONT`] and then the payload.
    memory: NonNull<u8>,
    payload_max: usize,
    /// What the kernel is told at registration; its address has to stay.
    vectors: Box<[libc::iovec; 2]>,
    queue: u16,
    /// Its place in its queue.
    place: u32,
    commit_id: AtomicU64,
    /// Bytes of payload that the latest answer touched.
    touched: AtomicU32,
    /// The request lies in the payload, where its answer goes: an answer waits until the handler
    /// has returned.
    in_place: AtomicBool,
    early: Mutex<Early>,
}

/// An answer that came while the handler of a request in place was still running.
#[derive(Default)]
struct Early {
    is_handled: bool,
    answer: Option<Vec<u8>>,
}

// SAFETY: the memory belongs to the entry alone, and whoever answers its request is the only one to
// write it until the ring's thread hands it to the kernel.
unsafe impl Send for Entry {}
// SAFETY: as above; the rest is atomic or locked.
unsafe impl Sync for Entry {}

impl Entry {
    fn new(queue: u16, place: u32, payload_max: usize) -> io::Result<Self> {
        let len = FRONT + payload_max;
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        );
        // SAFETY: a new anonymous mapping, of no file and at no given address.
        let memory = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast::<u8>())
            .ok_or_else(|| io::Error::other("memory at address zero"))?;
        // SAFETY: inside of the mapping.
        let payload = unsafe { memory.as_ptr().add(FRONT) };
        let vectors = Box::new([
            libc::iovec {
                iov_base: memory.as_ptr().cast(),
                iov_len: HEADERS,
            },
            libc::iovec {
                iov_base: payload.cast(),
                iov_len: payload_max,
            },
        ]);
        Ok(Entry {
            memory,
            payload_max,
            vectors,
            queue,
            place,
            commit_id: AtomicU64::new(0),
            touched: AtomicU32::new(0),
            in_place: AtomicBool::new(false),
            early: Mutex::default(),
        })
    }

    fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset <= FRONT + self.payload_max);
        // SAFETY: callers stay inside of the mapping.
        unsafe { self.memory.as_ptr().add(offset) }
    }

    fn number<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        // SAFETY: N bytes of the headers, which nobody writes while the entry is ours.
        unsafe { ptr::copy_nonoverlapping(self.at(offset), bytes.as_mut_ptr(), N) };
        bytes
    }

    /// Puts the request together as `/dev/fuse` would give it. Returns where it begins and its length.
    fn request(&self) -> Result<(usize, usize), &'static str> {
        self.commit_id
            .store(u64::from_ne_bytes(self.number(COMMIT_ID_AT)), Relaxed);
        let total = u32::from_ne_bytes(self.number(0)) as usize;
        let payload = u32::from_ne_bytes(self.number(PAYLOAD_SIZE_AT)) as usize;
        let op = total
            .checked_sub(IN_HEADER + payload)
            .ok_or("a request is shorter than its parts")?;
        if op > OP_MAX || payload > self.payload_max {
            return Err("a part of a request is larger than its room");
        }
        let is_small = total <= ROOM;
        // The library reads structures where they lie: they must be aligned.
        let start = match is_small {
            true => ROOM_AT,
            false if op % 8 == 0 => FRONT - op - IN_HEADER,
            false => return Err("a large request is not aligned"),
        };
        // SAFETY: all inside of the mapping, and the parts do not overlap: the headers end before
        // `ROOM_AT`, and the room ends before the payload.
        unsafe {
            ptr::copy_nonoverlapping(self.at(0), self.at(start), IN_HEADER);
            ptr::copy_nonoverlapping(self.at(OP_AT), self.at(start + IN_HEADER), op);
            if is_small {
                let to = self.at(start + IN_HEADER + op);
                ptr::copy_nonoverlapping(self.at(FRONT), to, payload);
            }
        }
        self.in_place.store(!is_small, Relaxed);
        if !is_small {
            *self.early.lock() = Early::default();
        }
        Ok((start, total))
    }

    /// Writes an answer where the kernel takes it from.
    fn write(&self, parts: &[IoSlice<'_>]) {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        if total < OUT_HEADER || total - OUT_HEADER > self.payload_max {
            warn!("an answer of {total} bytes does not fit its request");
            return self.refuse();
        }
        let mut written = 0;
        for part in parts {
            let in_header = OUT_HEADER.saturating_sub(written).min(part.len());
            let (head, rest) = part.split_at(in_header);
            // SAFETY: the header has 128 bytes, and the payload was found large enough.
            unsafe {
                ptr::copy_nonoverlapping(head.as_ptr(), self.at(written), head.len());
                let to = self.at(FRONT + (written + in_header).saturating_sub(OUT_HEADER));
                ptr::copy_nonoverlapping(rest.as_ptr(), to, rest.len());
            }
            written += part.len();
        }
        self.finish(total - OUT_HEADER);
    }

    /// Answers EIO.
    fn refuse(&self) {
        let unique: [u8; 8] = self.number(8);
        let mut header = [0; OUT_HEADER];
        header[..4].copy_from_slice(&(OUT_HEADER as u32).to_ne_bytes());
        header[4..8].copy_from_slice(&(-libc::EIO).to_ne_bytes());
        header[8..].copy_from_slice(&unique);
        // SAFETY: the header has 128 bytes.
        unsafe { ptr::copy_nonoverlapping(header.as_ptr(), self.at(0), OUT_HEADER) };
        self.finish(0);
    }

    fn finish(&self, payload: usize) {
        let payload = payload as u32;
        let bytes = payload.to_ne_bytes();
        // SAFETY: inside of the headers.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.at(PAYLOAD_SIZE_AT), 4) };
        self.touched.store(payload, Relaxed);
    }

    /// Gives the memory of the payload back; what is in it is of no use any more.
    fn forget_payload(&self) {
        // SAFETY: pages of our own mapping, which nobody reads before they are written again.
        let gone =
            unsafe { libc::madvise(self.at(FRONT).cast(), self.payload_max, libc::MADV_DONTNEED) };
        if gone != 0 {
            debug!("give memory back: {}", io::Error::last_os_error());
        }
    }

    fn command(&self, fd: i32, index: usize, operation: u32) -> Entry128 {
        let is_register = operation == FUSE_IO_URING_CMD_REGISTER;
        let commit_id = match is_register {
            true => 0,
            false => self.commit_id.load(Relaxed),
        };
        let mut bytes = [0_u8; 128];
        bytes[0] = IORING_OP_URING_CMD;
        bytes[4..8].copy_from_slice(&fd.to_ne_bytes());
        bytes[8..12].copy_from_slice(&operation.to_ne_bytes());
        if is_register {
            let vectors = self.vectors.as_ptr() as u64;
            bytes[16..24].copy_from_slice(&vectors.to_ne_bytes());
            bytes[24..28].copy_from_slice(&2_u32.to_ne_bytes());
        }
        bytes[32..40].copy_from_slice(&(index as u64).to_ne_bytes());
        bytes[56..64].copy_from_slice(&commit_id.to_ne_bytes());
        bytes[64..66].copy_from_slice(&self.queue.to_ne_bytes());
        const { assert!(size_of::<Entry128>() == 128) };
        // SAFETY: an entry of a submission queue is 128 bytes of plain numbers, laid out as above.
        unsafe { std::mem::transmute::<[u8; 128], Entry128>(bytes) }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let len = FRONT + self.payload_max;
        // SAFETY: our own mapping; the ring that the kernel knew it through is closed.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), len) };
    }
}

/// What a ring's thread shares with those who answer.
pub(crate) struct Shared {
    entries: Vec<Entry>,
    channel: ChannelSender,
    /// Entries that other threads have answered.
    answered: Mutex<Vec<usize>>,
    wake: EventFd,
}

thread_local! {
    /// The ring that this thread serves.
    static SERVED: Cell<*const Shared> = const { Cell::new(ptr::null()) };
    /// Entries of that ring that were answered on this thread.
    static DONE: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

impl Shared {
    /// Hands an answered entry to the ring's thread.
    fn done(&self, index: usize) {
        if ptr::eq(SERVED.get(), self) {
            return DONE.with_borrow_mut(|done| done.push(index));
        }
        self.answered.lock().push(index);
        if let Err(error) = self.wake.write(1) {
            warn!("wake a ring: {error}");
        }
    }
}

/// Answers the request of one entry.
#[derive(Clone)]
pub(crate) struct UringSender {
    shared: Arc<Shared>,
    index: usize,
}

impl std::fmt::Debug for UringSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UringSender")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl UringSender {
    pub(crate) fn channel(&self) -> &ChannelSender {
        &self.shared.channel
    }

    pub(crate) fn send(&self, parts: &[IoSlice<'_>]) {
        let entry = &self.shared.entries[self.index];
        if entry.in_place.load(Acquire) {
            let mut early = entry.early.lock();
            if !early.is_handled {
                early.answer = Some(parts.concat_bytes());
                return;
            }
        }
        entry.write(parts);
        self.shared.done(self.index);
    }

    /// Answers EIO, to what could not be read.
    pub(crate) fn refuse(&self) {
        let entry = &self.shared.entries[self.index];
        entry.in_place.store(false, Relaxed);
        entry.refuse();
        self.shared.done(self.index);
    }

    /// Takes note that the handler of the request has returned.
    fn handled(&self) {
        let entry = &self.shared.entries[self.index];
        if !entry.in_place.load(Relaxed) {
            return;
        }
        let mut early = entry.early.lock();
        early.is_handled = true;
        if let Some(answer) = early.answer.take() {
            entry.write(&[IoSlice::new(&answer)]);
            self.shared.done(self.index);
        }
    }
}

trait Concat {
    fn concat_bytes(&self) -> Vec<u8>;
}

impl Concat for [IoSlice<'_>] {
    fn concat_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.iter().map(|part| part.len()).sum());
        for part in self {
            bytes.extend_from_slice(part);
        }
        bytes
    }
}

/// One io_uring and the queues that it serves.
pub(crate) struct Ring {
    ring: IoUring<Entry128, cqueue::Entry>,
    shared: Arc<Shared>,
    cpu: usize,
    fd: i32,
    /// Where the eventfd is read to.
    woken: Box<u64>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("cpu", &self.cpu)
            .finish_non_exhaustive()
    }
}

// SAFETY: the ring is used by one thread, to which it is moved before its first use.
unsafe impl Send for Ring {}

/// Makes a ring for each CPU that this process may run on, with the queues of all possible CPUs.
///
/// # Errors
/// What the kernel says, before anything was promised to it.
pub(crate) fn rings(
    channel: &ChannelSender,
    depth: Depth,
    payload_max: usize,
) -> io::Result<Vec<Ring>> {
    let queues = possible_cpus()?;
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let mut cpus: Vec<usize> = (0..queues.min(CpuSet::count()))
        .filter(|&cpu| allowed.is_set(cpu).unwrap_or(false))
        .collect();
    if cpus.is_empty() {
        cpus.push(0);
    }
    let mut entries: Vec<Vec<Entry>> = cpus.iter().map(|_| Vec::new()).collect();
    for queue in 0..queues {
        let served = cpus.iter().position(|&cpu| cpu == queue);
        // Nobody asks on a CPU that is not there, or seldom: one entry is what the kernel insists on.
        let (thread, depth) = match served {
            Some(thread) => (thread, depth.0.max(1)),
            None => (queue % cpus.len(), 1),
        };
        let number = u16::try_from(queue).map_err(io::Error::other)?;
        for place in 0..depth {
            entries[thread].push(Entry::new(number, place, payload_max)?);
        }
    }
    let rings = cpus.into_iter().zip(entries);
    rings
        .map(|(cpu, entries)| Ring::new(channel, cpu, entries))
        .collect()
}

/// Returns how many CPUs the kernel may ever have; it wants a queue for each.
fn possible_cpus() -> io::Result<usize> {
    let ranges = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = ranges.trim().rsplit(['-', ',']).next();
    let last = last.and_then(|last| last.parse::<usize>().ok());
    last.map(|last| last + 1)
        .ok_or_else(|| io::Error::other("the kernel tells no possible CPUs"))
}

impl Ring {
    fn new(channel: &ChannelSender, cpu: usize, entries: Vec<Entry>) -> io::Result<Self> {
        // One more for the eventfd.
        let size = (entries.len() as u32 + 1).next_power_of_two();
        let mut builder = IoUring::builder();
        builder
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_r_disabled();
        let ring = builder.build(size)?;
        Ok(Ring {
            ring,
            cpu,
            fd: channel.as_fd().as_raw_fd(),
            woken: Box::default(),
            shared: Arc::new(Shared {
                entries,
                channel: channel.clone(),
                answered: Mutex::default(),
                wake: EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?,
            }),
        })
    }

    pub(crate) fn cpu(&self) -> usize {
        self.cpu
    }

    /// Gives the kernel the entries; from here on this thread must serve them. It may use them once
    /// all rings have done so.
    pub(crate) fn register(&mut self) -> io::Result<()> {
        let mut here = CpuSet::new();
        let pinned = here
            .set(self.cpu)
            .and_then(|()| sched_setaffinity(Pid::from_raw(0), &here));
        if let Err(error) = pinned {
            debug!("keep the thread of a ring on CPU {}: {error}", self.cpu);
        }
        self.ring.submitter().register_enable_rings()?;
        let shared = Arc::clone(&self.shared);
        for (index, entry) in shared.entries.iter().enumerate() {
            self.push(&entry.command(self.fd, index, FUSE_IO_URING_CMD_REGISTER))?;
        }
        self.await_wake()?;
        self.ring.submit()?;
        // A registration that succeeds completes with a request; one that fails does so at once.
        let mut failed = None;
        let mut completions = self.ring.completion();
        for completion in &mut completions {
            if completion.result() < 0 {
                failed = Some(io::Error::from_raw_os_error(-completion.result()));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn push(&mut self, command: &Entry128) -> io::Result<()> {
        let mut queue = self.ring.submission();
        // SAFETY: what the command points to lives as long as the ring.
        unsafe { queue.push(command) }.map_err(io::Error::other)
    }

    fn await_wake(&mut self) -> io::Result<()> {
        let to: *mut u64 = &mut *self.woken;
        let wake = Fd(self.shared.wake.as_fd().as_raw_fd());
        let read = opcode::Read::new(wake, to.cast(), 8).build();
        self.push(&Entry128::from(read.user_data(WAKE)))
    }

    /// Serves until the kernel lets go. `handle` gets each request and who answers it.
    pub(crate) fn serve(mut self, handle: impl Fn(&[u8], UringSender)) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        SERVED.set(Arc::as_ptr(&shared));
        let mut arrived: Vec<(u64, i32)> = Vec::new();
        let mut lost = 0;
        loop {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => continue,
                Err(error) => return Err(error),
            }
            let completions = self.ring.completion();
            arrived.extend(completions.map(|one| (one.user_data(), one.result())));
            for (index, result) in arrived.drain(..) {
                match (index, result) {
                    (WAKE, _) => {
                        DONE.with_borrow_mut(|done| done.append(&mut shared.answered.lock()));
                        self.await_wake()?;
                    }
                    (index, 0) => one(&shared, index as usize, &handle),
                    // The mount has gone.
                    (_, result) if -result == libc::ENOTCONN || -result == libc::ECANCELED => {
                        return Ok(());
                    }
                    // The kernel keeps the entry; the mount has one fewer.
                    (index, result) => {
                        let error = io::Error::from_raw_os_error(-result);
                        warn!("entry {index} of a ring is lost: {error}");
                        lost += 1;
                        if lost == shared.entries.len() {
                            return Err(error);
                        }
                    }
                }
            }
            self.hand_over(&shared)?;
        }
    }

    /// Gives the kernel the answers, and asks for the next requests.
    fn hand_over(&mut self, shared: &Shared) -> io::Result<()> {
        let done = DONE.with_borrow_mut(std::mem::take);
        let mut is_large = false;
        for &index in &done {
            let entry = &shared.entries[index];
            is_large |= entry.is_to_shrink();
            self.push(&entry.command(self.fd, index, FUSE_IO_URING_CMD_COMMIT_AND_FETCH))?;
        }
        if is_large {
            // The kernel has taken the answers when this returns, and puts no request into an entry
            // before this thread waits for one.
            self.ring.submit()?;
            let entries = done.iter().map(|&index| &shared.entries[index]);
            entries
                .filter(|entry| entry.is_to_shrink())
                .for_each(Entry::forget_payload);
        }
        DONE.with_borrow_mut(|kept| {
            *kept = done;
            kept.clear();
        });
        Ok(())
    }
}

impl Entry {
    fn is_to_shrink(&self) -> bool {
        self.place >= RESIDENT_MAX && self.touched.load(Relaxed) > SMALL_PAYLOAD
    }
}

/// Takes one request to its handler.
fn one(shared: &Arc<Shared>, index: usize, handle: &impl Fn(&[u8], UringSender)) {
    let entry = &shared.entries[index];
    let sender = UringSender {
        shared: Arc::clone(shared),
        index,
    };
    match entry.request() {
        Ok((start, len)) => {
            // SAFETY: just written, inside of the mapping, and not written again before the handler
            // has returned: small requests lie beside where answers go, and answers to large ones wait.
            let bytes = unsafe { std::slice::from_raw_parts(entry.at(start), len) };
            handle(bytes, sender.clone());
            sender.handled();
        }
        Err(fault) => {
            warn!("a request over io_uring: {fault}");
            entry.refuse();
            shared.done(index);
        }
    }
}
