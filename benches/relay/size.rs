//! Measures memory with a large platform, and idle costs.

use std::time::{Duration, Instant};

use crate::world::{LINES, Transport, World, service, tag};
use tagrelay_test_support::measure::{Work, memory_mib};

/// Each has two manifests.
const SERVICES: usize = 15_000;

/// By default, glibc gives each thread its own heap and rarely frees it.
const ONE_ARENA: (&str, &str) = ("MALLOC_ARENA_MAX", "1");

const AIM_MIB: f64 = 64.0;

const QUIET: Duration = Duration::from_secs(10);

pub async fn memory() {
    println!(
        "Memory of `tagrelay serve` with {} manifests of {LINES} lines, in MiB; the aim for the peak is {AIM_MIB};",
        2 * SERVICES
    );
    println!(
        "of files: the program's own code and the packs, which the system can take back. Without and with {}={},\nwhich our container image sets.",
        ONE_ARENA.0, ONE_ARENA.1
    );
    for (transport, variables) in
        [(Transport::File, &[][..]), (Transport::File, &[ONE_ARENA]), (Transport::Http, &[ONE_ARENA])]
    {
        let set: String = variables.iter().map(|(name, value)| format!(", {name}={value}")).collect();
        println!("\nover {}{set}", transport.name());
        println!("{:<46} {:>8} {:>8} {:>10} {:>12}", "", "peak", "now", "of files", "ready after");
        let mut world = World::start_with(transport, SERVICES, variables).await;
        report("first start: all is fetched and read", &world, Some(world.ready_after));
        update(&world, 0).await;
        report("  after one update", &world, None);
        world.fleet.kill();
        let begun = Instant::now();
        world.fleet.start().await;
        world.ready().await;
        report("restart: all is read from the mirror", &world, Some(begun.elapsed()));
        update(&world, 1).await;
        report("  after one update", &world, None);
    }
    println!();
}

pub async fn idle() {
    for services in [10, SERVICES] {
        println!("Idle, with {} manifests, after one update", 2 * services);
        let world = World::start(Transport::File, services).await;
        update(&world, 0).await;
        quiet(&world).await;
    }
    println!();
}

fn report(when: &str, world: &World, ready: Option<Duration>) {
    let process = world.fleet.pid();
    let peak = memory_mib(process, "VmHWM");
    let mark = if peak < AIM_MIB { "" } else { "   above the aim" };
    let ready = ready.map(|ready| format!("{:.2} s", ready.as_secs_f64())).unwrap_or_default();
    let (now, files) = (memory_mib(process, "VmRSS"), memory_mib(process, "RssFile"));
    println!("{when:<46} {peak:>8.1} {now:>8.1} {files:>10.1} {ready:>12}{mark}");
}

async fn update(world: &World, round: usize) {
    let number = round * 100;
    world.push_images([(number, tag(round))]).await;
    let (status, answer) = world.fleet.deliver(&service(number), &tag(round)).await;
    assert_eq!(status, 202, "{answer}");
    let event = world.fleet.settled(answer["events"][0]["id"].as_str().unwrap()).await;
    assert_eq!(event["state"], "committed", "{event:#}");
}

/// Prints processor time and wake-ups without work.
async fn quiet(world: &World) {
    // Wait for the work after the update, and until idle threads have ended.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let process = world.fleet.pid();
    let before = Work::of(process);
    tokio::time::sleep(QUIET).await;
    let (busy, runs) = Work::of(process).since(&before);
    println!("idle: {:.1} ms of processor time in {} s, {runs} wake-ups", busy.as_secs_f64() * 1e3, QUIET.as_secs());
}
