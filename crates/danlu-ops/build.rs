/// `cfg(accelerated)`: any of the features that bring a device other than the CPU. They share one backend.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(accelerated)");
    let features = ["CUDA", "ROCM", "METAL", "VULKAN", "WGPU"];
    if features.iter().any(|feature| std::env::var_os(format!("CARGO_FEATURE_{feature}")).is_some()) {
        println!("cargo::rustc-cfg=accelerated");
    }
}
