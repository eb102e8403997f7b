"""Pictures and facts to documents. Imports neither the engine nor the subject."""
