# Template: ../fill.sh puts in version, repository and checksums.
class LmsMetricsProxy < Formula
  desc "Transparent proxy in front of LM Studio that records token usage in SQLite"
  homepage "https://github.com/@REPOSITORY@"
  version "@VERSION@"
  license "MIT"

  on_macos do
    on_arm do
      url "https://github.com/@REPOSITORY@/releases/download/v@VERSION@/lms_metrics_proxy-@VERSION@-macos-arm64.tar.gz"
      sha256 "@SHA256_MACOS_ARM64@"
    end
    on_intel do
      url "https://github.com/@REPOSITORY@/releases/download/v@VERSION@/lms_metrics_proxy-@VERSION@-macos-x86_64.tar.gz"
      sha256 "@SHA256_MACOS_X86_64@"
    end
  end

  on_linux do
    on_arm do
      url "https://github.com/@REPOSITORY@/releases/download/v@VERSION@/lms_metrics_proxy-@VERSION@-linux-aarch64.tar.gz"
      sha256 "@SHA256_LINUX_AARCH64@"
    end
    on_intel do
      url "https://github.com/@REPOSITORY@/releases/download/v@VERSION@/lms_metrics_proxy-@VERSION@-linux-x86_64.tar.gz"
      sha256 "@SHA256_LINUX_X86_64@"
    end
  end

  def install
    bin.install "lms_metrics_proxy"
    man1.install "deploy/man/lms_metrics_proxy.1"
    doc.install "README.md", "CHANGELOG.md", "docs"
    pkgshare.install ".env.example", "model-prices.example.json", "deploy"
    # The service works there: database, settings (.env), log. For the user alone, for a database holds prompts.
    (var/"lms_metrics_proxy").mkpath
    (var/"lms_metrics_proxy").chmod 0700
  end

  service do
    run opt_bin/"lms_metrics_proxy"
    working_dir var/"lms_metrics_proxy"
    # After a crash, not after a setting that cannot be used was told.
    keep_alive crashed: true
    error_log_path var/"lms_metrics_proxy/lms_metrics_proxy.log"
  end

  def caveats
    <<~EOS
      As a service it keeps its database, metrics.db, in
        #{var}/lms_metrics_proxy
      and reads its settings from .env there; an example is
        #{pkgshare}/.env.example
    EOS
  end

  test do
    assert_equal "lms_metrics_proxy #{version}", shell_output("#{bin}/lms_metrics_proxy --version").chomp
    assert_match "LM_STUDIO_URL", shell_output("#{bin}/lms_metrics_proxy --check")
  end
end
