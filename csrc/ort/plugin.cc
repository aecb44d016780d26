// Execution providers that come as libraries of their own.
#include <mutex>
#include <set>

#include "ort/session_impl.h"

namespace textopia::ort {
namespace {

// The environment keeps a library until the process ends, and so does this; sessions may be made from any
// thread.
struct Registered {
  std::mutex mutex;
  std::set<std::string> providers;
};

Registered& registered() {
  static Registered* const instance = new Registered;
  return *instance;
}

void register_once(const Runtime& library, const Plugin& plugin, std::set<std::string>& known) {
  if (known.contains(plugin.provider)) return;
  check_status(library.api,
               library.api.RegisterExecutionProviderLibrary(library.env, plugin.provider.c_str(),
                                                            plugin.library.c_str()),
               Activity::kSetup, plugin.provider, "its library cannot be opened");
  known.insert(plugin.provider);
}

bool fits(const abi::Api& api, const abi::EpDevice* device, const Plugin& plugin) {
  if (plugin.provider != api.EpDevice_EpName(device)) return false;
  const abi::KeyValuePairs* facts = api.EpDevice_EpMetadata(device);
  for (const auto& [key, wanted] : plugin.device) {
    const char* found = api.GetKeyValue(facts, key.c_str());
    if (found == nullptr || wanted != found) return false;
  }
  return true;
}

// Belongs to the environment.
const abi::EpDevice* find_device(const Runtime& library, const Plugin& plugin) {
  Registered& known = registered();
  std::lock_guard lock(known.mutex);  // a registration changes the list that GetEpDevices lends
  register_once(library, plugin, known.providers);
  const abi::EpDevice* const* devices = nullptr;
  size_t count = 0;
  check_status(library.api, library.api.GetEpDevices(library.env, &devices, &count), Activity::kSetup,
               plugin.provider, "its devices cannot be listed");
  for (size_t i = 0; i < count; ++i)
    if (fits(library.api, devices[i], plugin)) return devices[i];
  std::string wanted;
  for (const auto& [key, value] : plugin.device)
    wanted += text(wanted.empty() ? "" : ", ", key, " = ", value);
  throw Error(code::kConfiguration,
              text(plugin.provider, ": its library offers no device with ", wanted, " on this machine."));
}

}  // namespace

void check_plugin(const Plugin& plugin) { find_device(runtime(), plugin); }

void add_plugin(const Runtime& library, const Plugin& plugin, abi::SessionOptions* options,
                const std::string& label) {
  const abi::EpDevice* device = find_device(library, plugin);
  std::vector<const char*> keys, values;
  for (const auto& [key, value] : plugin.options) {
    keys.push_back(key.c_str());
    values.push_back(value.c_str());
  }
  auto checked = [&](abi::Status* status) {
    check_status(library.api, status, Activity::kSetup, label, "the provider cannot be chosen");
  };
  checked(library.api.SessionOptionsAppendExecutionProvider_V2(options, library.env, &device, 1, keys.data(),
                                                               values.data(), keys.size()));
  checked(library.api.SetIntraOpNumThreads(options, 1));  // the plugin has threads of its own
  checked(library.api.AddSessionConfigEntry(options, "session.disable_cpu_ep_fallback", "1"));
}

}  // namespace textopia::ort
