#include "engine/interrupt.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>

namespace textopia::engine {
namespace {

// Signal dispositions belong to the process, so this state does too. Only the main thread touches it.
std::atomic<bool> was_interrupted{false};
struct sigaction previous_action;
int guard_depth = 0;

void on_sigint(int signal, siginfo_t* info, void* context) {
  was_interrupted.store(true, std::memory_order_relaxed);
  if (previous_action.sa_flags & SA_SIGINFO)
    previous_action.sa_sigaction(signal, info, context);
  else
    previous_action.sa_handler(signal);
}

bool is_main_thread() { return getpid() == static_cast<pid_t>(syscall(SYS_gettid)); }

}  // namespace

InterruptGuard::InterruptGuard() {
  if (!is_main_thread()) return;
  if (guard_depth == 0) {
    sigaction(SIGINT, nullptr, &previous_action);
    const bool has_handler = (previous_action.sa_flags & SA_SIGINFO) != 0 ||
                             (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN);
    if (!has_handler) return;
    was_interrupted.store(false, std::memory_order_relaxed);
    struct sigaction action = {};
    action.sa_sigaction = on_sigint;
    action.sa_flags = SA_SIGINFO | (previous_action.sa_flags & ~SA_SIGINFO);
    action.sa_mask = previous_action.sa_mask;
    if (sigaction(SIGINT, &action, nullptr) != 0) return;
  }
  ++guard_depth;
  is_watching_ = true;
}

InterruptGuard::~InterruptGuard() {
  if (!is_watching_ || --guard_depth > 0) return;
  // A callback may have installed another handler meanwhile; that one stays.
  struct sigaction current = {};
  sigaction(SIGINT, nullptr, &current);
  if ((current.sa_flags & SA_SIGINFO) && current.sa_sigaction == on_sigint)
    sigaction(SIGINT, &previous_action, nullptr);
}

std::atomic<bool>* InterruptGuard::flag() const { return is_watching_ ? &was_interrupted : nullptr; }

}  // namespace textopia::engine
