//! One very large content: published, replicated, delivered, cut on the way, with small publications beside it.

use crate::{
    Args, Failure,
    cluster::{Receive, memory_mib},
    load::{self, Paced},
    proxy::Proxy,
    say, say_memory,
};
use acms_bench::cluster::{Cluster, request};
use acms_engine::protocol::Hash;
use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

const RATE_PER_S: u32 = 50;

pub(crate) fn run(args: &Args, acms: &Path, dir: &Path, size: u64) -> Result<(), Failure> {
    let configure = |config| config + "\n[limits]\ncontent = \"1GiB\"\n";
    let cluster = Cluster::start(acms, &dir.join("cluster"), args.storage_points, configure)?;
    let alone = beside(&cluster, args.samples, false)?.join().map_err(|_| "the publishers panicked")??;
    say_paced("small_alone", &alone);
    let (file, hash) = make(dir, "large", size, 1)?;
    let proxy = Proxy::start(cluster.addresses[1])?;
    let receiver = Receive::start(acms, &proxy.url, &dir.join("received"), &[])?;
    let going = Arc::new(AtomicBool::new(true));
    let with = start_beside(&cluster, args.samples, Arc::clone(&going))?;
    deliver(acms, &cluster, &receiver, &file, hash)?;
    going.store(false, Ordering::Relaxed);
    let with = with.join().map_err(|_| "the publishers panicked")??;
    say_paced("small_beside", &with);
    say("small_p99_ratio", with.ms(0.99) / alone.ms(0.99));
    say_memory(&cluster, "large", "VmHWM")?;
    say("large_receiver_vmhwm_mib", memory_mib(receiver.child.id(), "VmHWM")?);
    cuts(acms, dir, &cluster, &proxy, &receiver, size)
}

fn beside(cluster: &Cluster, samples: u64, goes_on: bool) -> Result<JoinHandle<Result<Paced, Failure>>, Failure> {
    start_beside(cluster, samples, Arc::new(AtomicBool::new(goes_on)))
}

fn start_beside(
    cluster: &Cluster,
    samples: u64,
    goes_on: Arc<AtomicBool>,
) -> Result<JoinHandle<Result<Paced, Failure>>, Failure> {
    let addresses = cluster.addresses.clone();
    Ok(std::thread::spawn(move || load::paced(&addresses, RATE_PER_S, samples, &goes_on)))
}

fn say_paced(name: &str, paced: &Paced) {
    say(&format!("{name}_samples"), paced.latency_us.len() as f64);
    say(&format!("{name}_not_accepted"), paced.not_accepted as f64);
    say(&format!("{name}_p50_ms"), paced.ms(0.5));
    say(&format!("{name}_p99_ms"), paced.ms(0.99));
    say(&format!("{name}_max_ms"), paced.ms(1.0));
}

/// A file of `size` bytes, and its hash.
fn make(dir: &Path, name: &str, size: u64, seed: u64) -> Result<(PathBuf, Hash), Failure> {
    let path = dir.join(name);
    let mut file = File::create(&path)?;
    let block = load::content(seed, 1 << 20);
    let mut written = 0;
    while written < size {
        let mut block = block[..(size - written).min(1 << 20) as usize].to_vec();
        block[..8].copy_from_slice(&written.to_le_bytes());
        file.write_all(&block)?;
        written += block.len() as u64;
    }
    file.sync_all()?;
    Ok((path.clone(), hash_of(File::open(path)?)?))
}

fn hash_of(mut file: File) -> Result<Hash, Failure> {
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Hash(*hasher.finalize().as_bytes())),
            len => drop(hasher.update(&buffer[..len])),
        }
    }
}

/// Publishes the file and waits until all storage points and the receiver have it.
fn deliver(acms: &Path, cluster: &Cluster, receiver: &Receive, file: &Path, hash: Hash) -> Result<(), Failure> {
    let began = Instant::now();
    let mut publisher = Command::new(acms)
        .args(["publish", "--json", "--to", &format!("http://{}", cluster.addresses[0]), "large/file"])
        .arg(file)
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let mut memory: f64 = 0.0;
    while publisher.try_wait()?.is_none() {
        memory = memory.max(memory_mib(publisher.id(), "VmHWM").unwrap_or_default());
        std::thread::sleep(Duration::from_millis(50));
    }
    let said = publisher.wait_with_output()?;
    say("large_published_s", began.elapsed().as_secs_f64());
    say("large_publisher_vmhwm_mib", memory);
    if !said.status.success() {
        return Err(format!("not accepted: {}", String::from_utf8_lossy(&said.stdout)).into());
    }
    wait_for_copies(cluster, hash)?;
    say("large_replicated_s", began.elapsed().as_secs_f64());
    receiver.wait_for(&["\"kind\":\"applied\"", "large/file", &hash.to_string()])?;
    say("large_delivered_s", began.elapsed().as_secs_f64());
    Ok(())
}

fn wait_for_copies(cluster: &Cluster, hash: Hash) -> Result<(), Failure> {
    for address in &cluster.addresses {
        while request(*address, "HEAD", &format!("/v1/objects/{hash}"))?.0 != 200 {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// The receiver's download, the publisher's upload and the source of a storage point are cut off in the middle.
fn cuts(
    acms: &Path,
    dir: &Path,
    cluster: &Cluster,
    proxy: &Proxy,
    receiver: &Receive,
    size: u64,
) -> Result<(), Failure> {
    let (file, hash) = make(dir, "cut", size, 2)?;
    let upload = Proxy::start(cluster.addresses[0])?;
    proxy.take_counts();
    proxy.cut_at(size / 2);
    let cutter = upload.clone();
    let cut_upload = std::thread::spawn(move || {
        while cutter.up() < size / 2 {
            std::thread::sleep(Duration::from_millis(5));
        }
        cutter.cut();
    });
    let began = Instant::now();
    let published =
        Command::new(acms).args(["publish", "--json", "--to", &upload.url, "large/cut"]).arg(&file).output()?;
    cut_upload.join().map_err(|_| "the cutter panicked")?;
    say("cut_published_s", began.elapsed().as_secs_f64());
    say("cut_upload_bytes_up_per_byte", upload.up() as f64 / size as f64);
    if !published.status.success() {
        return Err(format!("not accepted: {}", String::from_utf8_lossy(&published.stdout)).into());
    }
    receiver.wait_for(&["\"kind\":\"applied\"", "large/cut", &hash.to_string()])?;
    say("cut_delivered_s", began.elapsed().as_secs_f64());
    say("cut_download_cuts", proxy.cuts() as f64);
    say("cut_download_bytes_down_per_byte", proxy.take_counts().1 as f64 / size as f64);
    Ok(())
}
