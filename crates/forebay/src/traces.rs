// SPDX-License-Identifier: Apache-2.0
//! Traces of what had to wait, for an OpenTelemetry collector.
//!
//! The rooms make spans where something waits (`types::trace`). Here those become spans of
//! OpenTelemetry, `keeper` chooses whole traces, and a task sends them in batches, as OTLP over HTTP.
//! The daemon never waits for a collector: the queue has a bound, what finds it full and what is not
//! taken is dropped and counted, and the log has a line when that begins, not one for each batch.
//! Without a collector none of this is made, and the rooms' spans are never made either.

mod client;
mod keeper;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use gateway::wire;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{Protocol, RetryPolicy, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter as _};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;
use types::Clock;
use types::trace::SPANS;

use self::client::Client;
use self::keeper::Keeper;
use crate::cli::TraceArgs;

/// One request in a hundred tells how a job waits, at a hundredth of the cost; what is slow or fails
/// is sent anyway.
const RATIO_DEFAULT: f64 = 0.01;

/// Spans that wait to be sent: at about a kilobyte each, 8 MiB.
const QUEUE_MAX: usize = 8192;

/// Spans that are sent at once, as the specification of OpenTelemetry has it.
const BATCH_MAX: usize = 512;

/// How long a batch gathers.
const GATHERING: Duration = Duration::from_secs(1);

/// How long a collector may take for a batch.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How long an end waits for the last batch.
const END_MAX: Duration = Duration::from_secs(2);

/// The least time between two lines that say that nothing is taken.
const QUIET: Duration = Duration::from_secs(600);

/// Where traces are sent, and which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TracePlan {
    /// The address that takes them, with its path.
    pub(crate) collector: String,
    /// Which part of all traces is sent, from 0 to 1.
    pub(crate) ratio: f64,
}

impl TracePlan {
    /// Makes the plan of flags and of what a file says.
    pub(crate) fn of(flags: &TraceArgs, file: &TraceArgs) -> Option<TracePlan> {
        let collector = flags.traces.as_ref().or(file.traces.as_ref())?;
        Some(TracePlan {
            collector: collector.clone(),
            ratio: flags
                .traces_ratio
                .or(file.traces_ratio)
                .unwrap_or(RATIO_DEFAULT),
        })
    }
}

/// Sends traces.
pub(crate) struct Traces {
    plan: TracePlan,
    provider: SdkTracerProvider,
    exporter: opentelemetry_otlp::SpanExporter,
    client: Client,
    keeper: Arc<Keeper>,
    spans: Mutex<Option<mpsc::Receiver<SpanData>>>,
    clock: Arc<dyn Clock>,
    sent: Mutex<Sent>,
    end: CancellationToken,
    ended: Notify,
}

/// What came of the batches so far.
#[derive(Debug, Default)]
struct Sent {
    taken: u64,
    not_taken: u64,
    /// Why the latest batch was not taken.
    fault: Option<String>,
    /// When that was last logged.
    told: Option<Instant>,
}

impl Traces {
    /// Makes what is needed to send traces of the mount at `mount_point`; sends nothing yet.
    pub(crate) fn new(
        plan: &TracePlan,
        mount_point: String,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Traces>> {
        let client = Client::new(&plan.collector, ANSWER_MAX)?;
        let mut exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client.clone())
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&plan.collector)
            .with_timeout(ANSWER_MAX)
            // Its pauses would block a thread of the runtime.
            .with_retry_policy(RetryPolicy::disabled())
            .build()
            .map_err(|error| anyhow!("{error}"))
            .with_context(|| format!("send traces to {}", plan.collector))?;
        let (sender, spans) = mpsc::channel(QUEUE_MAX);
        let keeper = Arc::new(Keeper::new(plan.ratio, sender));
        let resource = resource(mount_point);
        exporter.set_resource(&resource);
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            // The keeper chooses, when it is known how a trace ended.
            .with_sampler(Sampler::AlwaysOn)
            .with_span_processor(keeper::Door(Arc::clone(&keeper)))
            .build();
        Ok(Arc::new(Traces {
            plan: plan.clone(),
            provider,
            exporter,
            client,
            keeper,
            spans: Mutex::new(Some(spans)),
            clock,
            sent: Mutex::default(),
            end: CancellationToken::new(),
            ended: Notify::new(),
        }))
    }

    /// Returns what listens to the spans of the rooms, and to nothing else.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let is_ours = |metadata: &Metadata<'_>| metadata.is_span() && metadata.target() == SPANS;
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("forebay"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            .with_filter(filter_fn(is_ours).with_max_level_hint(LevelFilter::TRACE))
    }

    /// Begins to send.
    pub(crate) fn start(self: &Arc<Self>, runtime: &Handle) {
        let spans = self.spans.lock().take();
        let traces = Arc::clone(self);
        if let Some(spans) = spans {
            runtime.spawn(async move { traces.send_all(spans).await });
        }
    }

    /// Sends what is left. A collector that does not answer is not waited for.
    pub(crate) async fn end(&self) {
        self.end.cancel();
        let ended = tokio::time::timeout(END_MAX, self.ended.notified());
        if ended.await.is_err() {
            tracing::debug!("the last traces were not sent");
        }
    }

    /// Returns what there is to tell of it.
    pub(crate) fn status(&self) -> wire::Traces {
        let sent = self.sent.lock();
        wire::Traces {
            collector: self.plan.collector.clone(),
            ratio: self.plan.ratio,
            exported_spans: sent.taken,
            dropped_spans: sent.not_taken + self.keeper.dropped(),
            fault: sent.fault.clone(),
        }
    }

    async fn send_all(&self, mut spans: mpsc::Receiver<SpanData>) {
        let mut is_last = false;
        while !is_last {
            let mut batch = Vec::new();
            let gather = async {
                while batch.len() < BATCH_MAX {
                    let left = BATCH_MAX - batch.len();
                    if spans.recv_many(&mut batch, left).await == 0 {
                        // The keeper is gone, and nothing comes any more.
                        std::future::pending::<()>().await;
                    }
                }
            };
            tokio::select! {
                () = gather => {}
                () = tokio::time::sleep(GATHERING) => {}
                () = self.end.cancelled() => is_last = true,
            }
            while is_last && let Ok(span) = spans.try_recv() {
                batch.push(span);
            }
            if !batch.is_empty() {
                self.send(batch).await;
            }
        }
        self.ended.notify_one();
    }

    async fn send(&self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        let outcome = self.exporter.export(batch).await;
        let collector = &self.plan.collector;
        let now = self.clock.now();
        let mut sent = self.sent.lock();
        let Err(error) = outcome else {
            sent.taken += count;
            let was_failing = sent.fault.take().is_some();
            drop(sent);
            if was_failing {
                tracing::info!("traces: {collector} takes them again");
            }
            return;
        };
        sent.not_taken += count;
        let cause = self.client.cause().unwrap_or_else(|| error.to_string());
        let is_quiet = |told: Instant| now.saturating_duration_since(told) < QUIET;
        let tells = sent.fault.is_none() && !sent.told.is_some_and(is_quiet);
        if tells {
            sent.told = Some(now);
        }
        sent.fault = Some(cause.clone());
        drop(sent);
        if tells {
            tracing::warn!(
                "traces: {collector} does not take them, and they are dropped until it does: {cause}"
            );
        }
    }
}

/// Says who sends. What the environment says of it wins, as everywhere with OpenTelemetry.
fn resource(mount_point: String) -> Resource {
    let found = Resource::builder().build();
    let is_named = std::env::var_os("OTEL_SERVICE_NAME").is_some()
        || std::env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|all| all.contains("service.name="));
    let own = [
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("process.pid", i64::from(std::process::id())),
        KeyValue::new("forebay.mount_point", mount_point),
    ];
    let own = own.into_iter().filter(|one| found.get(&one.key).is_none());
    let name = KeyValue::new(Key::from_static_str("service.name"), "forebay");
    let name = (!is_named).then_some(name);
    Resource::builder().with_attributes(own.chain(name)).build()
}

impl std::fmt::Debug for Traces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Traces")
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}
