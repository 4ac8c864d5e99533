"""AG-UI: graphs behind `POST /ag-ui/{graph}`, as clients of the Agent User Interaction Protocol speak to agents.

What a run is and who may decide is not known here; the events of a workflow are told in that protocol's words.
"""
