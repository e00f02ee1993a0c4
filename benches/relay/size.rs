//! Memory of the process with a large platform, and what it costs when there is nothing to do.

use std::time::{Duration, Instant};

use crate::measure::{Work, memory_mib};
use crate::world::{LINES, Transport, World, service, tag};

/// Each has two manifests.
const SERVICES: usize = 15_000;

const AIM_MIB: f64 = 64.0;

const QUIET: Duration = Duration::from_secs(10);

pub async fn memory() {
    println!(
        "Memory of `tagrelay serve` with {} manifests of {LINES} lines, in MiB; the aim for the peak is {AIM_MIB}",
        2 * SERVICES
    );
    for transport in Transport::ALL {
        println!("\nover {}", transport.name());
        println!("{:<46} {:>8} {:>8} {:>10}", "", "peak", "now", "ready after");
        let mut world = World::start(transport, SERVICES).await;
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
        quiet(&world).await;
    }
    println!();
}

pub async fn idle() {
    println!("Idle, with 10 services");
    let world = World::start(Transport::File, 10).await;
    update(&world, 0).await;
    quiet(&world).await;
    println!();
}

fn report(when: &str, world: &World, ready: Option<Duration>) {
    let process = world.fleet.pid();
    let peak = memory_mib(process, "VmHWM");
    let mark = if peak < AIM_MIB { "" } else { "   above the aim" };
    let ready = ready.map(|ready| format!("{:.2} s", ready.as_secs_f64())).unwrap_or_default();
    println!("{when:<46} {peak:>8.1} {:>8.1} {ready:>10}{mark}", memory_mib(process, "VmRSS"));
}

async fn update(world: &World, round: usize) {
    let number = round * 100;
    world.push_images([(number, tag(round))]).await;
    let (status, answer) = world.fleet.deliver(&service(number), &tag(round)).await;
    assert_eq!(status, 202, "{answer}");
    let event = world.fleet.settled(answer["events"][0]["id"].as_str().unwrap()).await;
    assert_eq!(event["state"], "committed", "{event:#}");
}

/// Prints what the process does while nobody asks it for anything.
async fn quiet(world: &World) {
    // What follows an update is over by then, and threads that wait for more work have ended.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let process = world.fleet.pid();
    let before = Work::of(process);
    tokio::time::sleep(QUIET).await;
    let (busy, runs) = Work::of(process).since(&before);
    println!("idle: {:.1} ms of processor time in {} s, {runs} wake-ups", busy.as_secs_f64() * 1e3, QUIET.as_secs());
}
