# The sources are listed in CMakeLists.txt and nowhere else. node-gyp, as prebuildify and node-gyp-build call it,
# only hands over to cmake-js, which leaves build/Release/rolegrad.node.
{
  "targets": [
    {
      "target_name": "rolegrad",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake",
          "message": "Building with cmake-js",
          "inputs": ["CMakeLists.txt"],
          # Never written: the action always runs and CMake decides what is out of date.
          "outputs": ["<(module_root_dir)/build/.always"],
          "action": [
            "node",
            "<!(node -p \"require.resolve('cmake-js/bin/cmake-js')\")",
            "compile",
            "--out", "build/cmake",
            "--config", "<(CONFIGURATION_NAME)",
            "--arch", "<(target_arch)"
          ]
        }
      ]
    }
  ]
}
