// SPDX-License-Identifier: Apache-2.0
//! A TCP relay in front of an HTTP/1.1 server, to be slow, broken or silent on demand.
//!
//! It adds latency once to each request, caps the bytes of all answers or of all requests together, counts requests,
//! cuts answers, refuses connections, or takes them and stays silent; single requests can fail by
//! rules. It looks at the heads of requests only, and expects no pipelining. Two threads a connection, blocking I/O: exact to a
//! fraction of a millisecond, and cheap enough to stand beside a benchmark.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, park_timeout};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use types::{Clock, SystemClock};

use super::faults::{self, Fault, Rule};
use super::requests::RequestHeads;

/// A piece at 200 MB/s takes a millisecond: small enough for an even flow, large enough for few
/// system calls.
const PIECE: usize = 192 << 10;
/// What a flow may catch up after its thread was late, so that late wake-ups do not lower the rate.
const CATCH_UP: Duration = Duration::from_millis(5);
/// What is on its way on a slow line.
const LINE: usize = 64 << 10;
/// No answer is cut.
const NEVER: u64 = u64::MAX;

/// A relay; ends when dropped.
pub struct Relay {
    endpoint: String,
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// What the relay does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    /// Refuses connections.
    Refuse,
    /// Takes connections and bytes and gives none.
    Silent,
    /// Is being dropped.
    End,
}

struct Shared {
    upstream: SocketAddr,
    mode: Mutex<State>,
    changed: Condvar,
    latency_ns: AtomicU64,
    requests_flow: Mutex<Flow>,
    answers_flow: Mutex<Flow>,
    cut_after: AtomicU64,
    requests: AtomicU64,
    failed: AtomicU64,
}

struct State {
    mode: Mode,
    rules: Vec<Rule>,
    /// Counts how often all rules were taken back.
    healed: u64,
    listening: bool,
    next_id: u64,
    connections: HashMap<u64, [TcpStream; 2]>,
}

/// The answers of one connection.
#[derive(Debug, Default)]
struct Answers {
    /// How much went out since the last request began.
    sent: AtomicU64,
    /// The next one is cut off.
    lost: AtomicBool,
}

/// The bytes of all connections in one direction, as one queue that drains at a rate.
struct Flow {
    bytes_per_second: Option<f64>,
    /// How many bytes pass at once: on a slow line few, so that they trickle.
    piece: usize,
    drained: Instant,
}

impl Flow {
    fn open() -> Mutex<Self> {
        Mutex::new(Flow {
            bytes_per_second: None,
            piece: PIECE,
            drained: SystemClock.now(),
        })
    }

    fn cap(&mut self, bytes_per_second: Option<u64>) {
        let tenth = bytes_per_second.and_then(|rate| usize::try_from(rate / 10).ok());
        self.piece = tenth.map_or(PIECE, |tenth| tenth.clamp(64, PIECE));
        self.bytes_per_second = bytes_per_second.map(|rate| rate.max(1) as f64);
        self.drained = SystemClock.now();
    }
}

impl Relay {
    /// Starts a relay to an endpoint such as `http://127.0.0.1:7070`.
    ///
    /// # Errors
    /// When the endpoint is no socket address or no port can be had.
    pub fn start(endpoint: &str) -> Result<Self> {
        let upstream = endpoint.trim_start_matches("http://").trim_end_matches('/');
        let upstream = upstream
            .parse()
            .with_context(|| format!("endpoint {endpoint}"))?;
        let listener = TcpListener::bind("127.0.0.1:0").context("a port for the relay")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream,
            mode: Mutex::new(State {
                mode: Mode::Pass,
                rules: Vec::new(),
                healed: 0,
                listening: true,
                next_id: 0,
                connections: HashMap::new(),
            }),
            changed: Condvar::new(),
            latency_ns: AtomicU64::new(0),
            requests_flow: Flow::open(),
            answers_flow: Flow::open(),
            cut_after: AtomicU64::new(NEVER),
            requests: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        let of_thread = Arc::clone(&shared);
        let acceptor = thread::Builder::new()
            .name("relay".into())
            .spawn(move || of_thread.accept(listener, address))?;
        let endpoint = format!("http://{address}");
        Ok(Relay {
            endpoint,
            address,
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// Returns where it listens, as `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns how many requests came in.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Holds each request back for this long.
    pub fn set_latency(&self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.shared.latency_ns.store(nanoseconds, Ordering::Relaxed);
    }

    /// Caps the bytes a second of all answers together; `None` takes the cap off.
    pub fn set_bandwidth(&self, bytes_per_second: Option<u64>) {
        lock(&self.shared.answers_flow).cap(bytes_per_second);
    }

    /// Caps the bytes a second of all requests together; `None` takes the cap off. Connections that
    /// there are keep their room for megabytes.
    pub fn set_upload_bandwidth(&self, bytes_per_second: Option<u64>) {
        lock(&self.shared.requests_flow).cap(bytes_per_second);
    }

    /// Cuts the connection when an answer, its head included, is this long; `None` stops that.
    pub fn cut_after(&self, bytes: Option<u64>) {
        self.shared
            .cut_after
            .store(bytes.unwrap_or(NEVER), Ordering::Relaxed);
    }

    /// Has the next `times` requests fail that `is_meant` knows by their heads, in lower case.
    pub fn fail(&self, times: u64, fault: Fault, is_meant: impl Fn(&str) -> bool + Send + 'static) {
        let rule = Rule {
            is_meant: Box::new(is_meant),
            fault,
            left: times,
        };
        lock(&self.shared.mode).rules.push(rule);
    }

    /// Returns how many requests failed by rules.
    pub fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Takes all rules back. Connections that they kept waiting are cut.
    pub fn heal(&self) {
        let mut state = lock(&self.shared.mode);
        state.rules.clear();
        state.healed += 1;
        self.shared.changed.notify_all();
    }

    /// Cuts all connections and refuses new ones.
    pub fn switch_off(&self) {
        self.set_mode(Mode::Refuse);
    }

    /// Takes connections and requests, but answers nothing more. Connections stay open.
    pub fn black_hole(&self) {
        self.set_mode(Mode::Silent);
    }

    /// Works as at the start again. Connections that were kept waiting are cut.
    pub fn switch_on(&self) {
        self.set_mode(Mode::Pass);
    }

    /// Changes the mode; when this returns, the acceptor has followed.
    fn set_mode(&self, mode: Mode) {
        let mut state = lock(&self.shared.mode);
        let before = std::mem::replace(&mut state.mode, mode);
        if mode != Mode::Silent && before != mode {
            for [client, server] in state.connections.drain().map(|(_, streams)| streams) {
                cut(&client, &server);
            }
        }
        self.shared.changed.notify_all();
        let listens = matches!(mode, Mode::Pass | Mode::Silent);
        while state.listening != listens {
            drop(state);
            // The acceptor sits in `accept`: a connection wakes it up.
            let _woken = TcpStream::connect_timeout(&self.address, Duration::from_millis(100));
            state = lock(&self.shared.mode);
            if state.listening != listens {
                let waited = self
                    .shared
                    .changed
                    .wait_timeout(state, Duration::from_millis(10));
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.set_mode(Mode::End);
        if let Some(acceptor) = self.acceptor.take() {
            // A panic of that thread has been printed; a drop must not add another.
            let _ended = acceptor.join();
        }
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Takes connections until the relay is dropped.
    fn accept(self: &Arc<Self>, listener: TcpListener, address: SocketAddr) {
        let mut listener = Some(listener);
        loop {
            let mode = self.wait_to_listen(&mut listener, address);
            let (Some(listener), true) = (&listener, mode != Mode::End) else {
                return;
            };
            if let Ok((client, _)) = listener.accept() {
                // A connection that cannot be passed on is closed, as the server would.
                let _passed = self.connect(client);
            }
        }
    }

    /// Closes the listener while connections are refused; opens it again after.
    fn wait_to_listen(&self, listener: &mut Option<TcpListener>, address: SocketAddr) -> Mode {
        let mut state = lock(&self.mode);
        loop {
            if matches!(state.mode, Mode::Pass | Mode::Silent) {
                if listener.is_none() {
                    *listener = TcpListener::bind(address).ok();
                }
                if listener.is_some() {
                    state.listening = true;
                    self.changed.notify_all();
                    return state.mode;
                }
            } else {
                *listener = None;
                state.listening = false;
                self.changed.notify_all();
                if state.mode == Mode::End {
                    return Mode::End;
                }
            }
            let waited = self.changed.wait_timeout(state, Duration::from_millis(20));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn connect(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(self.upstream)?;
        // A slow line has no room for megabytes.
        if lock(&self.requests_flow).bytes_per_second.is_some() {
            rustix::net::sockopt::set_socket_recv_buffer_size(&client, LINE)?;
        }
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let mut state = lock(&self.mode);
        if matches!(state.mode, Mode::Refuse | Mode::End) {
            return Ok(());
        }
        let id = state.next_id;
        state.next_id += 1;
        state
            .connections
            .insert(id, [client.try_clone()?, server.try_clone()?]);
        drop(state);
        let answers = Arc::new(Answers::default());
        let (up, down) = (Arc::clone(self), Arc::clone(self));
        let (from, to, of_requests) = (
            client.try_clone()?,
            server.try_clone()?,
            Arc::clone(&answers),
        );
        thread::Builder::new()
            .name("relay-up".into())
            .spawn(move || {
                // Either side's end ends both; which error it was does not matter.
                let _end = up.pass_requests(&from, &to, &of_requests);
                up.forget(id, &from, &to);
            })?;
        thread::Builder::new()
            .name("relay-down".into())
            .spawn(move || {
                let _end = down.pass_answers(&server, &client, &answers);
                down.forget(id, &client, &server);
            })?;
        Ok(())
    }

    fn pass_requests(
        &self,
        mut from: &TcpStream,
        mut to: &TcpStream,
        answers: &Answers,
    ) -> io::Result<()> {
        let (mut heads, mut piece) = (RequestHeads::default(), vec![0; 64 << 10]);
        // What came of a head that has not ended: whether it passes is not known yet.
        let mut held = Vec::new();
        loop {
            let len = from.read(&mut piece)?;
            let came = SystemClock.now();
            if len == 0 || !self.passes() {
                return Ok(());
            }
            let seen = heads.feed(&piece[..len]);
            if seen.started {
                answers.sent.store(0, Ordering::Relaxed);
                sleep_until(came + Duration::from_nanos(self.latency_ns.load(Ordering::Relaxed)));
            }
            self.requests.fetch_add(seen.ended, Ordering::Relaxed);
            sleep_until(slot(&self.requests_flow, len));
            if !self.passes() {
                return Ok(());
            }
            held.extend_from_slice(&piece[..len]);
            // Without rules nothing is held back: not everything that passes here is HTTP.
            if heads.is_in_head() && !lock(&self.mode).rules.is_empty() {
                continue;
            }
            let fault = match seen.ended {
                0 => None,
                _ => self.meet(heads.last()),
            };
            match fault {
                None => to.write_all(&held)?,
                Some(Fault::LoseAnswer) => {
                    answers.lost.store(true, Ordering::Relaxed);
                    to.write_all(&held)?;
                }
                Some(Fault::Refuse(status, code)) => {
                    while heads.body_left() > 0 {
                        let len = from.read(&mut piece)?;
                        if len == 0 {
                            return Ok(());
                        }
                        heads.feed(&piece[..len]);
                    }
                    let mut client = from;
                    client.write_all(&faults::refusal(status, code))?;
                }
                Some(Fault::Late(late)) => {
                    sleep_until(came + late);
                    to.write_all(&held)?;
                }
                Some(Fault::Cut) => return Ok(()),
                Some(Fault::Silence) => {
                    self.wait_for_healing();
                    return Ok(());
                }
            }
            held.clear();
        }
    }

    /// Returns what becomes of the request with this head.
    fn meet(&self, head: &str) -> Option<Fault> {
        let fault = faults::meet(&mut lock(&self.mode).rules, head)?;
        self.failed.fetch_add(1, Ordering::Relaxed);
        Some(fault)
    }

    fn wait_for_healing(&self) {
        let mut state = lock(&self.mode);
        let before = state.healed;
        while state.healed == before && state.mode == Mode::Pass {
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn pass_answers(
        &self,
        mut from: &TcpStream,
        mut to: &TcpStream,
        answers: &Answers,
    ) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            let room = lock(&self.answers_flow).piece;
            let len = from.read(&mut piece[..room])?;
            if len == 0 || answers.lost.load(Ordering::Relaxed) || !self.passes() {
                return Ok(());
            }
            let total = answers.sent.fetch_add(len as u64, Ordering::Relaxed) + len as u64;
            let beyond = total.saturating_sub(self.cut_after.load(Ordering::Relaxed));
            let kept = len - usize::try_from(beyond).unwrap_or(len).min(len);
            sleep_until(slot(&self.answers_flow, kept));
            if !self.passes() {
                return Ok(());
            }
            to.write_all(&piece[..kept])?;
            if beyond > 0 {
                return Ok(());
            }
        }
    }

    /// Returns whether bytes may pass; waits while the relay is silent, and then they may not.
    fn passes(&self) -> bool {
        let mut state = lock(&self.mode);
        if state.mode == Mode::Pass {
            return true;
        }
        while state.mode == Mode::Silent {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        false
    }

    fn forget(&self, id: u64, one: &TcpStream, other: &TcpStream) {
        lock(&self.mode).connections.remove(&id);
        cut(one, other);
    }
}

/// Takes room for so many bytes in a flow; returns when they may go.
fn slot(flow: &Mutex<Flow>, bytes: usize) -> Instant {
    let now = SystemClock.now();
    let mut flow = lock(flow);
    let Some(rate) = flow.bytes_per_second else {
        return now;
    };
    let free = flow.drained.max(now.checked_sub(CATCH_UP).unwrap_or(now));
    flow.drained = free + Duration::from_secs_f64(bytes as f64 / rate);
    flow.drained
}

fn cut(one: &TcpStream, other: &TcpStream) {
    for stream in [one, other] {
        // An error means that it is closed already.
        let _closed = stream.shutdown(Shutdown::Both);
    }
}

fn sleep_until(instant: Instant) {
    loop {
        let left = instant.saturating_duration_since(SystemClock.now());
        if left.is_zero() {
            return;
        }
        park_timeout(left);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
