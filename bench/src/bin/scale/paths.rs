//! Many paths: filling, memory, what one change costs a receiver, restarts, a lost disk.

use crate::{
    Args, Failure,
    cluster::{self, Receive},
    load,
    proxy::Proxy,
    say, say_memory,
};
use acms_bench::cluster::Cluster;
use acms_engine::client::{Body, PublishOptions};
use std::{
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// What the receiver says within this time after a change belongs to it.
const QUIET: Duration = Duration::from_secs(3);

/// 100 files in each directory, two levels of them.
fn path_of(number: u64, flat: bool) -> String {
    match flat {
        true => format!("flat/f{number}"),
        false => format!("d{:03}/e{:02}/f{:02}", number / 10_000, number / 100 % 100, number % 100),
    }
}

pub(crate) fn run(args: &Args, acms: &Path, dir: &Path) -> Result<(), Failure> {
    let mut cluster = Cluster::start(acms, &dir.join("cluster"), args.storage_points, |config| config)?;
    say_memory(&cluster, "empty", "VmRSS")?;
    fill(args, &cluster)?;
    say_memory(&cluster, "filled", "VmRSS")?;
    say("checkpoints_waited_s", cluster::wait_for_checkpoints(&cluster)?.as_secs_f64());
    say_memory(&cluster, "checkpointed", "VmRSS")?;
    say_memory(&cluster, "checkpointed", "VmHWM")?;
    if !args.no_receiver {
        receive(args, acms, dir, &cluster)?;
    }
    restarts(&mut cluster)?;
    lose_a_disk(args, acms, &mut cluster)?;
    say_memory(&cluster, "end", "VmRSS")
}

fn fill(args: &Args, cluster: &Cluster) -> Result<(), Failure> {
    let began = Instant::now();
    let again = load::fill(&cluster.addresses, args.publishers, args.paths, |number| {
        let len = 100 + number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 901;
        (path_of(number, args.flat), load::content(number, len as usize))
    })?;
    let elapsed = began.elapsed().as_secs_f64();
    say("paths", args.paths as f64);
    say("filled_s", elapsed);
    say("publications_per_s", args.paths as f64 / elapsed);
    say("published_again", again as f64);
    Ok(())
}

/// A receiver that starts with nothing; then learns one change, by the feed and by walking the tree.
fn receive(args: &Args, acms: &Path, dir: &Path, cluster: &Cluster) -> Result<(), Failure> {
    let proxy = Proxy::start(cluster.addresses[0])?;
    let into = dir.join("received");
    let began = Instant::now();
    let receiver = Receive::start(acms, &proxy.url, &into, &[])?;
    receiver.wait_for(&["\"kind\":\"current\""])?;
    let (up, down) = proxy.take_counts();
    say("cold_receiver_s", began.elapsed().as_secs_f64());
    say("cold_receiver_bytes_up", up as f64);
    say("cold_receiver_bytes_down", down as f64);
    say("cold_receiver_vmhwm_mib", crate::memory_mib(receiver.child.id(), "VmHWM")?);

    let path = path_of(args.paths / 2, args.flat);
    std::thread::sleep(QUIET);
    proxy.take_counts();
    let uid = change(cluster, &path, 1)?;
    receiver.wait_for(&["\"kind\":\"applied\"", &uid])?;
    std::thread::sleep(QUIET / 3);
    let (up, down) = proxy.take_counts();
    say("change_by_changes_bytes_up", up as f64);
    say("change_by_changes_bytes_down", down as f64);

    receiver.stop()?;
    let uid = change(cluster, &path, 2)?;
    proxy.take_counts();
    let began = Instant::now();
    // It reads the snapshot and walks the tree each time; the first walk after a start is of all of it.
    let receiver = Receive::start(acms, &proxy.url, &into, &["--poll", "2s"])?;
    receiver.wait_for(&["\"kind\":\"applied\"", &uid])?;
    receiver.wait_for(&["\"kind\":\"current\""])?;
    say("receiver_restart_s", began.elapsed().as_secs_f64());
    say("receiver_restart_bytes_down", proxy.take_counts().1 as f64);
    let uid = change(cluster, &path, 3)?;
    receiver.wait_for(&["\"kind\":\"applied\"", &uid])?;
    let (up, down) = proxy.take_counts();
    say("change_by_tree_walk_bytes_up", up as f64);
    say("change_by_tree_walk_bytes_down", down as f64);
    receiver.stop()
}

fn change(cluster: &Cluster, path: &str, number: u64) -> Result<String, Failure> {
    let body = Body::Bytes(load::content(u64::MAX - number, 500).into());
    let result = cluster::client(cluster.addresses[0])?.publish(&path.parse()?, &body, &PublishOptions::default())?;
    Ok(result.uid.ok_or("the change was not accepted")?.to_string())
}

fn restarts(cluster: &mut Cluster) -> Result<(), Failure> {
    cluster::wait_for_checkpoints(cluster)?;
    let start = |name: &str, cluster: &mut Cluster| {
        let began = Instant::now();
        cluster.start_again(2)?;
        say(name, began.elapsed().as_secs_f64());
        Ok::<_, Failure>(())
    };
    cluster.kill(2)?;
    start("restart_after_kill_s", cluster)?;
    let began = Instant::now();
    cluster.stop(2)?;
    say("stop_s", began.elapsed().as_secs_f64());
    start("restart_after_stop_s", cluster)
}

/// Until the new store is joined, and its as-of is within 2 s of now.
fn lose_a_disk(args: &Args, acms: &Path, cluster: &mut Cluster) -> Result<(), Failure> {
    cluster.kill(3)?;
    let began = Instant::now();
    cluster::replace_disk(acms, cluster, 3)?;
    cluster.start_again(3)?;
    say("lost_disk_joined_s", began.elapsed().as_secs_f64());
    let client = cluster::client(cluster.addresses[2])?;
    loop {
        let snapshot = client.snapshot()?;
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as u64;
        if now_us.saturating_sub(snapshot.as_of_us) < 2_000_000 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    say("lost_disk_fresh_s", began.elapsed().as_secs_f64());
    let paths = client.status()?["protocol"]["paths"].as_u64().unwrap_or(0);
    match paths == args.paths {
        true => Ok(()),
        false => Err(format!("{paths} paths after the disk was lost").into()),
    }
}
