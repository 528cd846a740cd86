# Stands in for Node's common.gypi ("node_gyp_nodedir" in package.json), so that node-gyp downloads nothing:
# binding.gyp compiles nothing itself, and the Node-API headers are an npm package.
{
  'target_defaults': {
    'default_configuration': 'Release',
    'configurations': { 'Release': {}, 'Debug': {} },
    'conditions': [
      ['target_arch=="x64"', {'msvs_configuration_platform': 'x64'}],
      ['target_arch=="arm64"', {'msvs_configuration_platform': 'arm64'}],
    ],
  },
}
