//! The server: OpenAI's API and the studio over the engine. Being built; what it stands on is fixed here, so that adding a part does not
//! build everything below again.
