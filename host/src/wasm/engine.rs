//! The engine: how guests are compiled, where their memories live, and the clock that ends calls.
//!
//! Memories come from a pool whose size is fixed at start, so that a machine is not overcommitted by deploying more. Time is
//! measured in ticks of [`TICK`]: at each, running guests look whether their call is over. The ticking thread sleeps while
//! no call runs, and ends with the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use super::error::RuntimeError;
use super::limits::WasmLimits;

/// How often a running call looks at the time.
pub(super) const TICK: Duration = Duration::from_millis(10);
/// Ticks without a call after which the ticking thread goes to sleep.
const IDLE_TICKS: u32 = 100;
/// Core instances, memories and tables of one component: a plugin's own module, adapters and what it is composed of.
const CORE_INSTANCES_PER_COMPONENT: u32 = 64;
const MEMORIES_PER_COMPONENT: u32 = 4;
const TABLES_PER_COMPONENT: u32 = 8;
/// Memory that an instance is expected to need at least, by which the pool is sized. An idle one was measured at 54 KiB; what it
/// shares with the component's file is not in that.
const BYTES_PER_INSTANCE: u64 = 512 << 10;
/// Instances of a pool, whatever the machine's memory.
const INSTANCES: std::ops::RangeInclusive<u64> = 64..=4096;
/// Address space behind each memory in which an access with a constant offset faults instead of being checked.
const GUARD_BYTES: u64 = 64 << 10;

/// Makes the engine that `limits` ask for.
pub(super) fn build(limits: &WasmLimits) -> Result<Engine, RuntimeError> {
    let instances = limits.instances.unwrap_or_else(|| instances_for(machine_memory()));
    Engine::new(&config(limits, instances)).map_err(|error| RuntimeError::Engine { reason: format!("{error:#}") })
}

fn config(limits: &WasmLimits, instances: u32) -> Config {
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(limits, instances)))
        // 4 GiB behind each memory would spare bounds checks, and make calls 0 to 8 % cheaper (measured); but thousands of
        // instances would then reserve terabytes, which containers with a bound on address space refuse.
        .memory_reservation(limits.memory_bytes as u64)
        .memory_guard_size(GUARD_BYTES)
        .memory_init_cow(true)
        .epoch_interruption(true)
        .consume_fuel(false)
        // Calls are synchronous; without this each call would carry the bookkeeping of asynchronous ones, at twice the cost.
        .concurrency_support(false)
        .max_wasm_stack(limits.stack_bytes)
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        // A deploy compiles on its own thread only: the other cores belong to the traffic.
        .parallel_compilation(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false);
    config
}

fn pool(limits: &WasmLimits, instances: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
        .total_memories(instances)
        .total_tables(instances.saturating_mul(3))
        .total_stacks(0)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_memory_size(limits.memory_bytes)
        .table_elements(limits.table_elements)
        // What an instance leaves is given back to the system at once: instances live long, and the next is another plugin.
        .max_unused_warm_slots(8);
    pool
}

fn instances_for(memory_bytes: u64) -> u32 {
    let instances = (memory_bytes / BYTES_PER_INSTANCE).clamp(*INSTANCES.start(), *INSTANCES.end());
    u32::try_from(instances).expect("clamped to a small number")
}

/// Memory of the machine or of the container, whichever is less; 1 GiB where the system does not say.
fn machine_memory() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
    });
    let container = read("/sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse::<u64>().ok());
    machine.into_iter().chain(container).min().unwrap_or(1 << 30)
}

/// The thread that advances the engine's epoch.
pub(super) struct Ticker {
    /// What the thread and the calls share.
    clock: Arc<Clock>,
    /// The thread; taken when it is joined.
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Clock {
    /// Calls that run now.
    running: AtomicU64,
    /// Whether the thread sleeps until a call begins.
    asleep: AtomicBool,
    /// Whether the thread is to end.
    stopping: AtomicBool,
}

/// A call that runs; while one exists, the ticker ticks.
pub(super) struct Running<'a>(&'a Clock);

impl Ticker {
    pub(super) fn start(engine: &Engine) -> Result<Self, RuntimeError> {
        let clock = Arc::new(Clock::default());
        let (shared, engine) = (Arc::clone(&clock), engine.weak());
        let tick = move || {
            let mut idle = 0;
            while !shared.stopping.load(Ordering::SeqCst) {
                std::thread::park_timeout(TICK);
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
                idle = if shared.running.load(Ordering::SeqCst) == 0 { idle + 1 } else { 0 };
                if idle >= IDLE_TICKS {
                    drop(engine);
                    shared.sleep();
                    idle = 0;
                }
            }
        };
        let thread = std::thread::Builder::new().name("vespiary-ticker".to_owned()).spawn(tick);
        let thread = thread.map_err(|source| RuntimeError::Ticker { source })?;
        Ok(Self { clock, thread: Some(thread) })
    }

    /// A call begins; wakes the thread if it sleeps.
    pub(super) fn call(&self) -> Running<'_> {
        self.clock.running.fetch_add(1, Ordering::SeqCst);
        if self.clock.asleep.load(Ordering::SeqCst) {
            self.wake();
        }
        Running(&self.clock)
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Clock {
    /// Sleeps until a call runs or the thread is to end. The flag is raised before the counter is read, and the counter
    /// raised before the flag is read, so that one side always sees the other.
    fn sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        while self.running.load(Ordering::SeqCst) == 0 && !self.stopping.load(Ordering::SeqCst) {
            std::thread::park();
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.clock.stopping.store(true, Ordering::SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // A ticker that panicked has nothing left to clean up.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_follows_the_machine_within_bounds() {
        for (memory, expected) in [(0, 64), (256 << 20, 512), (24 << 30, 4096), (u64::MAX, 4096)] {
            assert_eq!(instances_for(memory), expected, "{memory} bytes");
        }
        assert!(machine_memory() > 0);
    }

    #[test]
    fn a_ticker_that_sleeps_is_woken_by_a_call_and_by_its_end() {
        let engine = build(&WasmLimits { instances: Some(1), ..WasmLimits::default() }).unwrap();
        let ticker = Ticker::start(&engine).unwrap();
        while !ticker.clock.asleep.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let call = ticker.call();
        while ticker.clock.asleep.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        drop(call);
        drop(ticker);
    }
}
